"""What DPM-Solver, UniPC and DEIS share: unit-variance latents, and time measured by ``log(alpha / sigma)``."""

import numpy as np

from ...engines.errors import UsageError
from .prediction import signal_and_noise
from .rows import Array, Indices
from .solver import Grid, Request
from .spacing import final_sigma, log_spaced_timesteps, respaced_sigmas, timestep_from_sigma

__all__ = ["half_log_snr", "log_snr_grid", "shifted", "variance_preserving_level"]


def half_log_snr(sigma: Array) -> Array:
    """Return lambda, half the logarithm of the signal-to-noise ratio, for a noise-to-signal ratio."""
    return -np.log(sigma)


def shifted(values: Array, i: Indices, back: int) -> Array:
    """Return the values ``back`` evaluations before ``i``; before the first one there is no history to use them."""
    return values[np.maximum(i - back, 0)]


def variance_preserving_level(_request: Request, grid: Grid, i: Indices) -> tuple[Array, Array]:
    """Signal and noise factors of a latent of unit variance at evaluation ``i``."""
    return signal_and_noise(grid.sigmas[i])


def log_snr_grid(request: Request, *, round_cosine: bool = False, end_at_spacing: bool = False) -> Grid:
    """Return whole timesteps and their sigmas, by the options' spacing or the request's own timesteps.

    Args:
        request: what is asked for.
        round_cosine: round the timesteps of Karras sigmas for the cosine beta schedule too (diffusers' DPM-Solver
            cuts their fractions off instead).
        end_at_spacing: with ``final_sigmas_type="sigma_min"``, end at the lowest sigma of the chosen spacing rather
            than at the lowest one trained.

    """
    options, levels, n = request.options, request.levels, request.step_count
    timesteps: Array
    if request.timesteps is not None:
        timesteps = np.array(request.timesteps).astype(np.int64).astype(np.float64)
    else:
        timesteps = log_spaced_timesteps(options, n, _usable_timesteps(request))
    trained = levels.sigmas
    respaced = respaced_sigmas(options, float(trained[-1]), float(trained[0]), n)
    if respaced is None and options.use_lu_lambdas:
        # Equal steps of lambda, DPM-Solver's own proposal (https://arxiv.org/abs/2206.00927, section 3.4)
        log = levels.log_sigmas
        respaced = np.exp(np.linspace(log[-1], log[0], n, dtype=np.float64))
    if respaced is None:
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    else:
        sigmas, timesteps = respaced, timestep_from_sigma(respaced, levels)
        rounded = options.use_karras_sigmas or options.use_lu_lambdas
        if rounded and (round_cosine or options.beta_schedule != "squaredcos_cap_v2"):
            timesteps = timesteps.round()
    last = final_sigma(options, levels)
    if last and end_at_spacing and respaced is not None:
        last = respaced[-1]
    sigmas = np.append(sigmas, last).astype(np.float32).astype(np.float64)
    return Grid(timesteps=np.trunc(timesteps), sigmas=sigmas)


def _usable_timesteps(request: Request) -> int:
    """Return how many training timesteps lie above ``lambda_min_clipped`` (needed for the cosine schedule)."""
    cumprod = request.levels.alphas_cumprod
    lambdas = np.log(np.sqrt(cumprod)) - np.log(np.sqrt(1 - cumprod))
    usable = len(lambdas) - int(np.searchsorted(lambdas[::-1], np.float32(request.options.lambda_min_clipped)))
    if usable < 1:
        raise UsageError(f"lambda_min_clipped={request.options.lambda_min_clipped} leaves no noise level to start from")
    return usable
