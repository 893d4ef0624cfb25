"""The denoiser with its two text encoders: one network to train, and a plain Euler sampler to look at it with."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from .demo_networks import SCHEDULER, VAE, new_text_encoders, new_unet
from .evaluate import Draw
from .latent_data import token_ids

__all__ = ["Painter", "Words", "drawer", "signal_share"]

Words = tuple[torch.Tensor, torch.Tensor]
"""What a prompt becomes: both encoders' penultimate states side by side [n, 77, 112], the pooled one [n, 64]."""


class Painter(nn.Module):
    """UNet and text encoders, under the names of a diffusers pipeline."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.text_encoder, self.text_encoder_2 = new_text_encoders(vocabulary)
        self.unet = new_unet()

    def words(self, tokens: torch.Tensor, tokens_2: torch.Tensor) -> Words:
        """Encode token ids [n, 77] of both tokenizers."""
        first = self.text_encoder(tokens, output_hidden_states=True)
        second = self.text_encoder_2(tokens_2, output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds

    def noise(self, noisy: torch.Tensor, timestep: torch.Tensor, words: Words, time_ids: torch.Tensor) -> torch.Tensor:
        """Return the noise believed to be in ``noisy`` [n, 4, h, w] at time steps [n]."""
        conditions = {"text_embeds": words[1], "time_ids": time_ids}
        drawn = self.unet(noisy, timestep, encoder_hidden_states=words[0], added_cond_kwargs=conditions)
        return torch.as_tensor(drawn.sample)


def signal_share() -> torch.Tensor:
    """Return the share of the signal's variance at each of the 1000 time steps (the paper's alpha-bar), float64."""
    ends = SCHEDULER["beta_start"] ** 0.5, SCHEDULER["beta_end"] ** 0.5
    betas = torch.linspace(*ends, SCHEDULER["num_train_timesteps"], dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


def drawer(painter: Painter, vae: Any, tokenizers: tuple[Any, Any], *, steps: int = 20, guidance: float = 5.0) -> Draw:
    """Return a drawer for the evaluation: Euler, leading spacing, classifier-free guidance against zeros."""

    @torch.no_grad()
    def draw(
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        original_size: tuple[int, int] = (128, 128),
        crops_coords_top_left: tuple[int, int] = (0, 0),
        size: tuple[int, int] = (128, 128),
    ) -> Sequence[npt.NDArray[np.uint8]]:
        words = painter.words(*(token_ids(tokenizer, list(prompts)) for tokenizer in tokenizers))
        both: Words = (
            torch.cat([torch.zeros_like(words[0]), words[0]]),
            torch.cat([torch.zeros_like(words[1]), words[1]]),
        )
        ids = torch.tensor([[*original_size, *crops_coords_top_left, *size]], dtype=torch.float32)
        shape = (4, size[0] // 8, size[1] // 8)
        start = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

        def believed(noisy: torch.Tensor, timestep: int) -> torch.Tensor:
            rows = torch.cat([noisy, noisy])
            time = torch.full((len(rows),), timestep)
            without, asked = painter.noise(rows, time, both, ids.expand(len(rows), -1)).chunk(2)
            return torch.as_tensor(without + guidance * (asked - without))

        return _decoded(vae, _euler(start, believed, steps))

    return draw


def _euler(start: torch.Tensor, believed: Callable[[torch.Tensor, int], torch.Tensor], steps: int) -> torch.Tensor:
    """Integrate from unit noise to a latent, with Karras et al.'s sigma as the variable."""
    share = signal_share()
    last = SCHEDULER["num_train_timesteps"] // steps
    timesteps = [last * step + SCHEDULER["steps_offset"] for step in reversed(range(steps))]
    sigmas: list[float] = [*((1 - share) / share).sqrt()[timesteps].tolist(), 0.0]
    x: torch.Tensor = start * (sigmas[0] ** 2 + 1) ** 0.5
    for timestep, sigma, following in zip(timesteps, sigmas, sigmas[1:], strict=False):
        x += believed(x / (sigma**2 + 1) ** 0.5, timestep) * (following - sigma)
    return x


def _decoded(vae: Any, latents: torch.Tensor) -> list[npt.NDArray[np.uint8]]:
    pixels = vae.decode(latents / VAE["scaling_factor"]).sample.add(1).mul(127.5).round().clamp(0, 255)
    return list(pixels.to(torch.uint8).permute(0, 2, 3, 1).numpy())
