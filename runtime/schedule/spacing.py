"""The noise levels of a solver's steps: timesteps, and sigmas that are not tied to whole timesteps.

Rounding is part of the result, since the network gets the rounded timestep. So numbers are rounded exactly as in
diffusers: same formula, same number format. Table 2 of https://arxiv.org/abs/2305.08891 defines the three spacings.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from .combinations import Array
from .levels import TrainingLevels
from .quantile import beta_quantiles
from .solver_options import SolverOptions

__all__ = ["final_sigma", "log_spaced_timesteps", "respaced_sigmas", "spaced_timesteps", "timestep_from_sigma"]


def spaced_timesteps(options: SolverOptions, steps: int, *, training_steps: int | None = None) -> Array:
    """Return ``steps`` timesteps that include both ends of the schedule (for Euler, DDIM and others), descending.

    Args:
        options: ``timestep_spacing``, ``steps_offset`` and ``num_train_timesteps`` are read.
        steps: how many; "trailing" may give one more if the schedule's length is no multiple of it.
        training_steps: length of the schedule, when it is not ``num_train_timesteps``.

    """
    total = options.num_train_timesteps if training_steps is None else training_steps
    if options.timestep_spacing == "linspace":
        return np.linspace(0, total - 1, steps)[::-1]
    if options.timestep_spacing == "leading":
        return np.arange(steps, dtype=np.float64)[::-1] * (total // steps) + options.steps_offset
    return np.arange(total, 0, -total / steps).round() - 1


def log_spaced_timesteps(options: SolverOptions, steps: int, last: int) -> Array:
    """Return the upper ``steps`` of ``steps + 1`` spaced whole timesteps (for DPM-Solver, UniPC), descending.

    Args:
        options: ``timestep_spacing``, ``steps_offset`` and ``num_train_timesteps`` are read.
        steps: how many.
        last: number of usable training timesteps; ``lambda_min_clipped`` may exclude some.

    """
    if options.timestep_spacing == "linspace":
        return np.linspace(0, last - 1, steps + 1).round()[::-1][:-1]
    if options.timestep_spacing == "leading":
        stops = np.arange(steps + 1, dtype=np.float64) * (last // (steps + 1))
        return stops[::-1][:-1] + options.steps_offset
    return np.arange(last, 0, -options.num_train_timesteps / steps).round() - 1


def respaced_sigmas(options: SolverOptions, highest: float, lowest: float, steps: int) -> Array | None:
    """Return ``steps`` sigmas in the spacing of the options, descending; None if sigmas follow from the timesteps.

    Karras: https://arxiv.org/abs/2206.00364, equation 5, with rho = 7. Exponential: equal ratios. Beta:
    https://arxiv.org/abs/2407.12173. The options ``sigma_max`` and ``sigma_min`` replace ``highest`` and ``lowest``.

    Raises:
        UsageError: two of these spacings are chosen at once.

    """
    kinds = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    chosen = [kind for kind in kinds if getattr(options, kind)]
    if not chosen:
        return None
    if len(chosen) > 1:
        raise UsageError(f"choose one of {' and '.join(chosen)}: they are different spacings of the same sigmas")
    high = highest if options.sigma_max is None else options.sigma_max
    low = lowest if options.sigma_min is None else options.sigma_min
    if options.use_karras_sigmas:
        return karras_sigmas(high, low, steps, rho=7.0)
    if options.use_exponential_sigmas:
        return exponential_sigmas(high, low, steps)
    return low + beta_quantiles(steps) * (high - low)


def karras_sigmas(high: float, low: float, steps: int, rho: float) -> Array:
    """Sigmas whose ``1/rho``-th powers are equally spaced (https://arxiv.org/abs/2206.00364, equation 5)."""
    ramp: Array = np.linspace(0, 1, steps)
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    sigmas: Array = (top + ramp * (bottom - top)) ** rho
    return sigmas


def exponential_sigmas(high: float, low: float, steps: int) -> Array:
    """Sigmas whose logarithms are equally spaced."""
    return np.exp(np.linspace(np.log(high), np.log(low), steps))


def timestep_from_sigma(sigmas: Sequence[float] | NDArray[np.floating], levels: TrainingLevels) -> Array:
    """Return the fractional timesteps at which the trained noise level is ``sigmas``, interpolating log sigma."""
    table = levels.log_sigmas
    log_sigma = np.log(np.maximum(sigmas, 1e-10))
    low = np.clip(np.searchsorted(table, log_sigma, side="right") - 1, 0, len(table) - 2)
    weight = np.clip((table[low] - log_sigma) / (table[low] - table[low + 1]), 0, 1)
    return np.asarray((1 - weight) * low + weight * (low + 1), dtype=np.float64)


def final_sigma(options: SolverOptions, levels: TrainingLevels) -> float:
    """Return the sigma after the last step: zero, or the lowest one that was trained."""
    return 0.0 if options.final_sigmas_type == "zero" else float(levels.sigmas[0])
