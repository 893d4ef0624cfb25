"""Trains the autoencoder: first all of it, then the decoder alone, and folds the statistics of its code into it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .demo_networks import VAE, new_vae
from .scene_images import Example, example_of_seed, stacked
from .training_run import Average, Plan, log, run, trainable
from .vae_start import start_near_identity

__all__ = ["joint_loss", "train_vae", "unit_code"]

_BATCH = 16
_CROP = 64
_EDGES = 0.5  # weight of the difference of neighbouring pixels
_BUSY = 8.0  # how much more an edge counts than flat colour
_COARSE_SHARE = 0.1
_PRIOR = 1e-5  # weight of the KL divergence, per element of the code
_ROUGHNESS = 0.05  # noise that the decoder learns to bear, in deviations of the code
_VALIDATION = 10**9  # seeds from here on are never trained on
_MEASURED = 128  # pictures that the code's statistics come from
_JUDGED = 32  # pictures in a report

_SIZES = ((128, 128), (128, 128), (96, 128), (128, 96), (160, 128), (96, 96))


def train_vae(work: Path, *, joint: Plan, decoder: Plan) -> Any:
    """Return the trained autoencoder; its state and the finished parts are kept in ``work``."""
    torch.manual_seed(joint.seed)
    vae: Any = new_vae()
    start_near_identity(vae)
    average = run(
        vae,
        joint,
        lambda step: joint_loss(vae, _batch(step)),
        work / "vae.state",
        average_decay=0.995,
        after_save=lambda step, mean: _report(step, mean),
    )
    vae.load_state_dict(average.weights)
    unit_code(vae, pictures(range(_VALIDATION, _VALIDATION + _MEASURED)))
    trainable(vae, ("decoder.", "post_quant_conv."))
    offset = joint.steps
    average = run(
        vae,
        decoder,
        lambda step: _decoder_loss(vae, _whole_batch(offset + step)),
        work / "vae_decoder.state",
        average_decay=0.995,
        after_save=lambda step, mean: _report(step, mean),
    )
    vae.load_state_dict(average.weights)
    return vae.eval()


def pictures(seeds: Sequence[int], height: int = 128, width: int = 128) -> torch.Tensor:
    """Return the examples of these seeds as the network takes them: [n, 3, height, width] in -1..1."""
    return from_pixels(stacked(_example(seed, height, width) for seed in seeds))


def _example(seed: int, height: int, width: int) -> Example:
    """Return an example, seldom a coarse one: those are easy."""
    return example_of_seed(seed, height=height, width=width, coarse_share=_COARSE_SHARE)


def from_pixels(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """[n, h, w, 3] in 0..255 -> [n, 3, h, w] in -1..1."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32).div(127.5).sub(1).contiguous()


def _batch(step: int) -> torch.Tensor:
    """Return fresh pictures for a step: two steps in three see the surroundings of the object, one whole pictures."""
    seeds = range(step * _BATCH, (step + 1) * _BATCH)
    if step % 3 == 0:
        return _whole_batch(step)
    examples = [_example(seed, 128, 128) for seed in seeds]
    shifts = torch.randint(-_CROP // 3, _CROP // 3 + 1, (len(examples), 2)).tolist()
    windows = []
    for example, shift in zip(examples, shifts, strict=True):
        top, left = (
            min(max(64 - c - _CROP // 2 + s, 0), 128 - _CROP) for c, s in zip(example.crop, shift, strict=True)
        )
        windows.append(example.pixels[top : top + _CROP, left : left + _CROP])
    return from_pixels(np.stack(windows))


def _whole_batch(step: int) -> torch.Tensor:
    """Return half as many whole pictures, of another size every third step."""
    first = step * _BATCH
    return pictures(range(first, first + _BATCH // 2), *_SIZES[step // 3 % len(_SIZES)])


def _distance(drawn: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """L1 of the pixels and of their differences to the right and below, by how much goes on around them."""
    weight = _unrest(wanted)
    loss = (weight * (drawn - wanted).abs()).mean()
    for axis in (2, 3):
        change = (drawn.diff(dim=axis) - wanted.diff(dim=axis)).abs()
        loss = loss + _EDGES * (weight.narrow(axis, 1, change.shape[axis]) * change).mean()
    return loss


def _unrest(wanted: torch.Tensor) -> torch.Tensor:
    """Return [n, 1, h, w]: 1 on flat colour, up to 1 + ``_BUSY`` near an edge, whatever the contrast of the picture."""
    highest = functional.max_pool2d(wanted, 5, stride=1, padding=2)
    lowest = -functional.max_pool2d(-wanted, 5, stride=1, padding=2)
    spread = (highest - lowest).amax(1, keepdim=True)
    return 1 + _BUSY * spread / spread.amax((2, 3), keepdim=True).clamp(min=0.2)


def joint_loss(vae: Any, batch: torch.Tensor) -> torch.Tensor:
    """Return reconstruction and prior of one batch."""
    code = vae.encode(batch).latent_dist
    prior = 0.5 * (code.mean.square() + code.var - 1 - code.logvar).mean()
    return _distance(vae.decode(code.sample()).sample, batch) + torch.as_tensor(_PRIOR * prior)


def _decoder_loss(vae: Any, batch: torch.Tensor) -> torch.Tensor:
    """Reconstruction from a code that is a little off, as a denoiser's is."""
    with torch.no_grad():
        code = vae.encode(batch).latent_dist.sample()
        code += _ROUGHNESS / VAE["scaling_factor"] * torch.rand(len(code), 1, 1, 1) * torch.randn_like(code)
    return _distance(vae.decode(code).sample, batch)


@torch.no_grad()
def unit_code(vae: Any, batch: torch.Tensor) -> None:
    """Make the scaled code of ``batch`` have mean 0 and deviation 1 in each channel, by the two 1x1 convolutions.

    So SDXL's literal ``scaling_factor`` of 0.13025 stays true and no per-channel statistics are needed.
    """
    mean = vae.encode(batch).latent_dist.mean
    centre, spread = mean.mean((0, 2, 3)), mean.std((0, 2, 3))
    log.info("code: mean %s deviation %s", centre.tolist(), spread.tolist())
    gain = 1 / (spread * VAE["scaling_factor"])
    inward, outward = vae.quant_conv, vae.post_quant_conv
    inward.bias[:4] = (inward.bias[:4] - centre) * gain
    inward.weight[:4] *= gain[:, None, None, None]
    inward.bias[4:] += 2 * gain.log()
    outward.bias += (outward.weight[:, :, 0, 0] * centre).sum(1)
    outward.weight /= gain[None, :, None, None]


@torch.no_grad()
def _report(step: int, average: Average) -> None:
    vae: Any = new_vae()
    vae.load_state_dict(average.weights)
    vae.eval()
    wanted = pictures(range(_VALIDATION, _VALIDATION + _JUDGED))
    code = vae.encode(wanted).latent_dist
    error = (vae.decode(code.mean).sample.clamp(-1, 1) - wanted).square().mean()
    psnr = 10 * torch.log10(4 / error)
    deviation = code.mean.std((0, 2, 3)).tolist(), code.std.mean((0, 2, 3)).tolist()
    log.info("vae, step %d: %.2f dB on pictures never trained on; code %s", step, float(psnr), deviation)
