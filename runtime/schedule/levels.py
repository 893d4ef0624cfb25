"""The noise levels a checkpoint was trained with.

diffusers computes them in float32, and timesteps are later *rounded* from them, so the same float32 numbers are
needed, not merely close ones. The tests compare them bit by bit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError, nearest
from .solver_options import SolverOptions

__all__ = ["TrainingLevels", "training_levels"]

Singles = NDArray[np.float32]

_TERMINAL_FLOOR = np.float32(2**-24)
"""Zero terminal SNR makes the last sigma infinite; solvers that work with sigmas keep it at 4096 instead."""


@dataclass(frozen=True)
class TrainingLevels:
    """Noise levels by training timestep, float32 ``[T]``, computed as diffusers computes them.

    Attributes:
        alphas_cumprod: the share of signal variance, ``alpha_bar`` of DDPM (https://arxiv.org/abs/2006.11239).

    """

    alphas_cumprod: Singles

    @cached_property
    def sigmas(self) -> Singles:
        """Noise-to-signal ratio, ascending."""
        sigmas: Singles = np.sqrt((1 - self.alphas_cumprod) / self.alphas_cumprod)
        return sigmas

    @cached_property
    def log_sigmas(self) -> Singles:
        """Natural logarithm of :attr:`sigmas`."""
        return np.log(self.sigmas)


def training_levels(options: SolverOptions, *, floor: bool = True) -> TrainingLevels:
    """Return the noise levels of a checkpoint.

    Args:
        options: the solver's options, with the checkpoint's betas.
        floor: with ``rescale_betas_zero_snr``, keep the last level a little above zero signal.

    Raises:
        UsageError: an unknown ``beta_schedule``, or betas outside (0, 1).

    """
    return _training_levels(
        options.num_train_timesteps,
        options.beta_start,
        options.beta_end,
        options.beta_schedule,
        options.trained_betas,
        options.rescale_betas_zero_snr,
        floor,
    )


@lru_cache(maxsize=16)
def _training_levels(
    count: int,
    start: float,
    end: float,
    schedule: str,
    trained: tuple[float, ...] | None,
    rescale: bool,
    floor: bool,
) -> TrainingLevels:
    if trained is not None:
        betas = np.array(trained, dtype=np.float32)
    elif schedule in BETA_SCHEDULES:
        betas = BETA_SCHEDULES[schedule](start, end, count)
    else:
        known = ", ".join(BETA_SCHEDULES)
        raise UsageError(f"beta_schedule {schedule!r} is unknown{nearest(schedule, BETA_SCHEDULES)} (known: {known})")
    if len(betas) != count:
        raise UsageError(f"trained_betas has {len(betas)} entries, num_train_timesteps says {count}")
    if not (np.all(betas > 0) and np.all(betas < 1)):
        raise UsageError("every beta must lie between 0 and 1: check beta_start, beta_end and trained_betas")
    if rescale:
        betas = _rescaled_to_zero_snr(betas)
    cumprod = _cumprod(1 - betas)
    if rescale and floor:
        cumprod[-1] = _TERMINAL_FLOOR
    cumprod.setflags(write=False)
    return TrainingLevels(cumprod)


def _linspace(start: float, end: float, count: int) -> Singles:
    """``torch.linspace`` in float32: filled from both ends, with one rounding per element."""
    first, last = np.float32(start), np.float32(end)
    if count == 1:
        return np.array([first])
    step = np.float64((last - first) / np.float32(count - 1))
    index = np.arange(count)
    ahead = first + step * index
    back = last - step * (count - 1 - index)
    return np.where(index < count // 2, ahead, back).astype(np.float32)


def _cumprod(values: Singles) -> Singles:
    """``torch.cumprod`` in float32, which accumulates in float64 and rounds each element."""
    return np.cumprod(values, dtype=np.float64).astype(np.float32)


def _linear(start: float, end: float, count: int) -> Singles:
    return _linspace(start, end, count)


def _scaled_linear(start: float, end: float, count: int) -> Singles:
    return np.square(_linspace(start**0.5, end**0.5, count))


def _cosine(_start: float, _end: float, count: int) -> Singles:
    """Improved DDPM's cosine schedule (https://arxiv.org/abs/2102.09672, section 3.2), betas capped at 0.999."""

    def alpha_bar(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    return _betas_from_alpha_bar(alpha_bar, count)


def _exponential(_start: float, _end: float, count: int) -> Singles:
    """Signal variance ``exp(-12 t)`` for t from 0 to 1."""

    def alpha_bar(time: float) -> float:
        return math.exp(-12.0 * time)

    return _betas_from_alpha_bar(alpha_bar, count)


def _laplace(_start: float, _end: float, count: int) -> Singles:
    """Laplace-distributed log SNR (https://arxiv.org/abs/2407.03297), as diffusers reads it."""

    def alpha_bar(time: float) -> float:
        log_snr = -0.5 * math.copysign(1, 0.5 - time) * math.log(1 - 2 * abs(0.5 - time) + 1e-6)
        return math.sqrt(1 / (1 + math.exp(-log_snr)))

    return _betas_from_alpha_bar(alpha_bar, count)


def _sigmoid(start: float, end: float, count: int) -> Singles:
    """Betas that rise from start to end like a logistic curve over [-6, 6]."""
    rising = np.divide(1, 1 + np.exp(-_linspace(-6, 6, count)), dtype=np.float32)
    betas: Singles = rising * np.float32(end - start) + np.float32(start)
    return betas


def _betas_from_alpha_bar(alpha_bar: Callable[[float], float], count: int) -> Singles:
    """Betas, at most 0.999, whose cumulative products follow ``alpha_bar`` on [0, 1]."""
    betas = [min(1 - alpha_bar((i + 1) / count) / alpha_bar(i / count), 0.999) for i in range(count)]
    return np.array(betas, dtype=np.float32)


BETA_SCHEDULES = {
    "linear": _linear,
    "scaled_linear": _scaled_linear,
    "squaredcos_cap_v2": _cosine,
    "exp": _exponential,
    "laplace": _laplace,
    "sigmoid": _sigmoid,
}


def _rescaled_to_zero_snr(betas: Singles) -> Singles:
    """Shift and scale sqrt(alpha_bar) so that it ends at zero (https://arxiv.org/abs/2305.08891, algorithm 1)."""
    root = np.sqrt(_cumprod(1 - betas))
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    bar = np.square(root)
    alphas = np.concatenate([bar[:1], bar[1:] / bar[:-1]])
    rescaled: Singles = 1 - alphas
    return rescaled
