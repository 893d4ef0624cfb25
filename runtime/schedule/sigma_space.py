"""Common code of k-diffusion's solvers: latents that are x0 plus sigma times noise.

The variables of "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al.,
https://arxiv.org/abs/2206.00364); the network's input is the latent divided by ``sqrt(sigma**2 + 1)``.
"""

import numpy as np

from ...engines.errors import UsageError
from .combinations import Array, Indices, X
from .predicted import denoised_at_sigma
from .singles import rounded
from .solver import Grid, ScheduleRequest
from .spacing import respaced_sigmas, spaced_timesteps, timestep_from_sigma

__all__ = [
    "derivative_at",
    "initial_noise",
    "input_scale",
    "refuse_respacing",
    "sigma_level",
    "spaced_levels",
    "twice_but_first",
]


def input_scale(sigma: Array) -> Array:
    """Return the factor that gives the network's input unit variance."""
    return 1 / np.sqrt(sigma**2 + 1)


def initial_noise(request: ScheduleRequest, sigmas: Array) -> float:
    """Return the factor of the initial noise: ``sigma_max``, or with "leading" spacing ``sqrt(sigma_max**2 + 1)``."""
    top = float(sigmas.max())
    return float(np.hypot(top, 1)) if request.options.timestep_spacing == "leading" else top


def sigma_level(_request: ScheduleRequest, grid: Grid, i: Indices) -> tuple[Array, Array]:
    """Signal and noise factors of a latent at evaluation ``i``: x0 plus sigma times noise."""
    sigma = grid.sigmas[i]
    return np.ones_like(sigma), sigma


def derivative_at(request: ScheduleRequest, sigma: Array, x: Array = X) -> Array:
    """Return ``dx/dsigma`` of the probability-flow ODE at the latent ``x`` the network was evaluated at."""
    return (x - denoised_at_sigma(request, sigma)) / sigma


def spaced_levels(
    request: ScheduleRequest, *, rounded_karras: bool = False, exact: bool = False
) -> tuple[Array, Array]:
    """Return the timesteps and sigmas of the steps, each ``[n]``, without the sigma after the last one.

    Args:
        request: the solver's input, by number of steps or by timesteps.
        rounded_karras: round the timesteps of Karras sigmas, as the DPM2 schedulers do.
        exact: keep fractional timesteps in float64 rather than float32.

    """
    options, levels = request.options, request.levels
    if request.timesteps is None:
        timesteps = spaced_timesteps(options, request.step_count)
    else:
        refuse_respacing(request)
        timesteps = np.array(request.timesteps)
    timesteps = timesteps if exact else rounded(timesteps)
    if options.interpolation_type == "log_linear":
        log = levels.log_sigmas.astype(np.float64)
        sigmas = np.exp(np.linspace(log[-1], log[0], request.step_count + 1))
    else:
        sigmas = np.interp(timesteps, np.arange(len(levels.sigmas)), levels.sigmas)
    respaced = respaced_sigmas(options, sigmas[0], sigmas[-1], request.step_count)
    if respaced is not None:
        sigmas, timesteps = respaced, timestep_from_sigma(respaced, levels)
        if rounded_karras and options.use_karras_sigmas:
            timesteps = timesteps.round()
    return timesteps, sigmas


def refuse_respacing(request: ScheduleRequest) -> None:
    """Refuse custom timesteps together with a spacing of sigmas, which would replace them.

    Raises:
        UsageError: a spacing is switched on.

    """
    for name in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas"):
        if getattr(request.options, name):
            raise UsageError(f"{request.solver}: timesteps cannot be combined with {name}=True, which chooses its own")


def twice_but_first(values: Array) -> Array:
    """Repeat all but the first: ``a b c`` -> ``a b b c c``, for solvers with two evaluations per step."""
    return np.repeat(values, 2)[1:]
