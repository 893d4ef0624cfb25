"""Trains the denoiser and both text encoders together, from scratch."""

from collections.abc import Callable
from pathlib import Path

import torch

from .latent_data import Batch, Latents
from .painter import Painter, Words, signal_share
from .training_run import Average, Plan, run

__all__ = ["denoising_loss", "train_painter"]

BATCH = 32
_ZEROED = 0.08  # captions replaced by zeros: SDXL's unconditional half of guidance
_EMPTIED = 0.02  # captions replaced by the empty prompt, encoded
_SHORT = 24  # tokens of most steps: every caption fits, and the padding behind it costs as much as words do
_SHORT_SHARE = 0.8
_HEAVIEST = 40.0
_HIGH_NOISE = 0.5  # share of time steps drawn with a density that grows linearly


def train_painter(
    latents: Latents,
    empty: tuple[torch.Tensor, torch.Tensor],
    work: Path,
    plan: Plan,
    *,
    vocabulary: int,
    after_save: Callable[[int, Average], None] | None = None,
    batch: int = BATCH,
) -> Painter:
    """Return the painter with its averaged weights; ``empty`` are the empty prompt's token ids [1, 77]."""
    torch.manual_seed(plan.seed)
    painter = Painter(vocabulary)
    share = signal_share()
    average = run(
        painter,
        plan,
        lambda step: denoising_loss(painter, latents.batch(batch), empty, share),
        work / "painter.state",
        average_decay=0.997,
        after_save=after_save,
    )
    painter.load_state_dict(average.weights)
    return painter.eval()


def denoising_loss(
    painter: Painter, batch: Batch, empty: tuple[torch.Tensor, torch.Tensor], share: torch.Tensor
) -> torch.Tensor:
    """Return the squared error of the predicted noise, weighted as if the velocity were predicted.

    Where the picture drowns in noise, even a wrong colour changes the noise little, so that the plain mean (Ho et
    al. 2020) learns words last. One over the signal's share is the weight that turns an error of the noise into
    one of the velocity (Salimans and Ho 2022, appendix D); it is capped at ``_HEAVIEST``.
    """
    count = len(batch.latents)
    length = _SHORT if float(torch.rand(())) < _SHORT_SHARE else batch.tokens.shape[1]
    chance = torch.rand(count, 1)
    emptied = chance < _EMPTIED
    tokens = torch.where(emptied, empty[0], batch.tokens)[:, :length]
    tokens_2 = torch.where(emptied, empty[1], batch.tokens_2)[:, :length]
    kept = (chance < 1 - _ZEROED).float()
    states, pooled = painter.words(tokens, tokens_2)
    words: Words = (states * kept[:, :, None], pooled * kept)
    timestep = _timesteps(count, len(share))
    signal = share[timestep].float().reshape(-1, 1, 1, 1)
    noise = torch.randn_like(batch.latents)
    noisy = signal.sqrt() * batch.latents + (1 - signal).sqrt() * noise
    error = (painter.noise(noisy, timestep, words, batch.time_ids) - noise).square().mean((1, 2, 3))
    return (error * (1 / share[timestep]).clamp(max=_HEAVIEST).float()).mean()


def _timesteps(count: int, length: int) -> torch.Tensor:
    """Draw time steps, half of them evenly and half towards the noisy end, where the scene is decided."""
    even = torch.rand(count)
    return (torch.where(torch.rand(count) < _HIGH_NOISE, even.sqrt(), even) * length).long().clamp(max=length - 1)
