"""The data set as the denoiser sees it: encoded once, kept on disk, drawn from at random."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .demo_networks import VAE
from .scene_images import example_of_seed, stacked
from .train_vae import from_pixels
from .training_run import log

__all__ = ["Batch", "Latents", "encode_data_set"]

MAIN_SIZE = (128, 128)
OTHER_SIZES = ((96, 128), (128, 96), (128, 160), (160, 128), (160, 160))
"""(height, width) of the pictures; where the others were encoded too, a quarter of the steps see one of them."""

_OTHER_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Scaled latents [n, 4, h/8, w/8], token ids [n, 77] of both tokenizers, and size numbers [n, 6]."""

    latents: torch.Tensor
    tokens: torch.Tensor
    tokens_2: torch.Tensor
    time_ids: torch.Tensor


class Latents:
    """Encoded examples by picture size; a batch resamples the code from its mean and deviation."""

    def __init__(self, sizes: dict[tuple[int, int], dict[str, torch.Tensor]]) -> None:
        self._sizes = sizes

    def batch(self, count: int) -> Batch:
        """Return random examples of one size, chosen by torch's generator."""
        size = MAIN_SIZE
        if len(self._sizes) > 1 and float(torch.rand(())) < _OTHER_SHARE:
            size = OTHER_SIZES[int(torch.randint(len(OTHER_SIZES), ()))]
        examples = self._sizes[size]
        rows = torch.randint(len(examples["mean"]), (count,))
        mean, deviation = examples["mean"][rows].float(), examples["deviation"][rows].float()
        return Batch(
            latents=(mean + deviation * torch.randn_like(mean)) * VAE["scaling_factor"],
            tokens=examples["tokens"][rows],
            tokens_2=examples["tokens_2"][rows],
            time_ids=examples["time_ids"][rows].float(),
        )


def encode_data_set(
    vae: Any, tokenizers: tuple[Any, Any], folder: Path, *, main: int, other: int, seed: int
) -> Latents:
    """Draw and encode ``main`` pictures of 128 x 128 and ``other`` of every other size, unless ``folder`` has them."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[tuple[int, int], dict[str, torch.Tensor]] = {}
    wanted = [(MAIN_SIZE, main), *((size, other) for size in OTHER_SIZES if other)]
    for index, (size, count) in enumerate(wanted):
        file = folder / f"latents-{size[0]}x{size[1]}-{count}.pt"
        if not file.exists():
            first = random.Random(f"latents {seed} {index}").randrange(10**8)
            torch.save(_encode(vae, tokenizers, range(first, first + count), size), file)
        sizes[size] = torch.load(file, weights_only=True)
    return Latents(sizes)


@torch.no_grad()
def _encode(vae: Any, tokenizers: tuple[Any, Any], seeds: range, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    parts: dict[str, list[torch.Tensor]] = {"mean": [], "deviation": [], "tokens": [], "tokens_2": [], "time_ids": []}
    for first in range(0, len(seeds), 16):
        examples = [example_of_seed(seed, height=size[0], width=size[1]) for seed in seeds[first : first + 16]]
        code = vae.encode(from_pixels(stacked(examples))).latent_dist
        parts["mean"].append(code.mean.half())
        parts["deviation"].append(code.std.half())
        captions = [example.caption for example in examples]
        for name, tokenizer in zip(("tokens", "tokens_2"), tokenizers, strict=True):
            parts[name].append(token_ids(tokenizer, captions))
        parts["time_ids"].append(torch.tensor([example.time_ids for example in examples]))
    log.info("encoded %d pictures of %d x %d", len(seeds), *size)
    return {name: torch.cat(part) for name, part in parts.items()}


def token_ids(tokenizer: Any, prompts: list[str]) -> torch.Tensor:
    """Return [n, 77] token ids, padded the way the tokenizer pads."""
    ids = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")["input_ids"]
    return torch.as_tensor(ids)
