"""Common code of DPM-Solver, UniPC and DEIS: unit-variance latents, and time measured by ``log(alpha / sigma)``."""

import numpy as np

from ...engines.errors import UsageError
from .combinations import Array, Indices
from .predicted import signal_and_noise
from .sigma_space import refuse_respacing
from .singles import Singles, rounded, singles
from .solver import Grid, ScheduleRequest
from .spacing import log_spaced_timesteps, respaced_sigmas, timestep_from_sigma

__all__ = ["dpm_grid", "levels_at", "log_snr_grid", "variance_preserving_level"]


def levels_at(grid: Grid, i: Indices, back: int = 0) -> Singles:
    """Return the noise-to-signal ratios ``back`` evaluations before ``i``, ``[N]``, in float32.

    For evaluations before the first, the value is that of the first; it is not used.
    """
    return singles(grid.sigmas[np.maximum(i - back, 0)])


def variance_preserving_level(_request: ScheduleRequest, grid: Grid, i: Indices) -> tuple[Array, Array]:
    """Signal and noise factors of a latent of unit variance at evaluation ``i``."""
    alpha, sigma = signal_and_noise(levels_at(grid, i))
    return alpha.astype(np.float64), sigma.astype(np.float64)


def log_snr_grid(
    request: ScheduleRequest, *, final: str | None = None, round_cosine: bool = True, end_at_spacing: bool = True
) -> Grid:
    """Return whole timesteps and their sigmas, by the options' spacing or for custom timesteps.

    Args:
        request: the solver's input.
        final: ``final_sigmas_type`` for a solver without that option.
        round_cosine: whether the timesteps of Karras sigmas are rounded for the cosine beta schedule too; if not,
            they are truncated, as in diffusers' multistep DPM-Solver.
        end_at_spacing: if the last sigma is not zero, whether it is the lowest of the chosen spacing, or else the
            lowest trained one.

    """
    options, levels, n = request.options, request.levels, request.step_count
    timesteps: Array
    if request.timesteps is None:
        timesteps = log_spaced_timesteps(options, n, _usable_timesteps(request))
    else:
        refuse_respacing(request)
        timesteps = np.trunc(request.timesteps)
    trained = levels.sigmas
    respaced = respaced_sigmas(options, float(trained[-1]), float(trained[0]), n)
    if respaced is None and options.use_lu_lambdas:
        # Equal steps of lambda, DPM-Solver's own proposal (https://arxiv.org/abs/2206.00927, section 3.4)
        low, high = float(levels.log_sigmas[0]), float(levels.log_sigmas[-1])
        respaced = np.exp(high + np.linspace(0, 1, n) * (low - high))
    if respaced is None:
        sigmas = np.interp(timesteps, np.arange(len(trained)), trained)
    else:
        sigmas, timesteps = respaced, timestep_from_sigma(respaced, levels)
        whole = options.use_karras_sigmas or options.use_lu_lambdas
        if whole and (round_cosine or options.beta_schedule != "squaredcos_cap_v2"):
            timesteps = timesteps.round()
    last = 0.0
    if (final or options.final_sigmas_type) == "sigma_min":
        last = float(trained[0]) if respaced is None or not end_at_spacing else respaced[-1]
    return Grid(timesteps=np.trunc(timesteps), sigmas=rounded(np.append(sigmas, last)))


def dpm_grid(request: ScheduleRequest, *, round_cosine: bool) -> Grid:
    """Return the grid of DPM-Solver.

    Raises:
        UsageError: the algorithm integrates predicted noise, which cannot reach zero noise, and the last sigma is zero.

    """
    options = request.options
    if not options.algorithm_type.endswith("++") and options.final_sigmas_type == "zero":
        raise UsageError(
            f"{request.solver}: algorithm_type={options.algorithm_type!r} cannot step to zero noise; "
            "pass final_sigmas_type='sigma_min', or an algorithm_type ending in '++'"
        )
    return log_snr_grid(request, round_cosine=round_cosine, end_at_spacing=False)


def _usable_timesteps(request: ScheduleRequest) -> int:
    """Return how many training timesteps lie above ``lambda_min_clipped`` (needed for the cosine schedule)."""
    cumprod = request.levels.alphas_cumprod
    lambdas = np.log(np.sqrt(cumprod)) - np.log(np.sqrt(1 - cumprod))
    usable = len(lambdas) - int(np.searchsorted(lambdas[::-1], np.float32(request.options.lambda_min_clipped)))
    if usable < 1:
        raise UsageError(f"lambda_min_clipped={request.options.lambda_min_clipped} leaves no noise level to start from")
    return usable
