"""Euler's method on the probability-flow ODE, plain and ancestral.

Algorithm 1 of https://arxiv.org/abs/2206.00364 without its correction, and k-diffusion's ancestral sampling.
"""

import numpy as np

from .combinations import NOISE, Array, Indices, X
from .sigma_space import derivative_at, initial_noise, input_scale, sigma_level, spaced_levels
from .singles import rounded
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable
from .spacing import final_sigma, timestep_from_sigma

__all__ = ["EULER", "EULER_ANCESTRAL", "ancestral_split"]


def _euler_grid(request: ScheduleRequest) -> Grid:
    if request.sigmas is None:
        timesteps, sigmas = spaced_levels(request)
        sigmas = rounded(np.append(sigmas, final_sigma(request.options, request.levels)))
    else:
        sigmas = rounded(np.array(request.sigmas))
        timesteps = timestep_from_sigma(sigmas[:-1].astype(np.float32), request.levels)
    if request.options.timestep_type == "continuous" and request.options.prediction_type == "v_prediction":
        timesteps = 0.25 * np.log(sigmas[:-1])
    return Grid(timesteps=rounded(timesteps), sigmas=sigmas, initial_noise=initial_noise(request, sigmas))


def _euler_steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    sigma, sigma_next = grid.sigmas[i], grid.sigmas[i + 1]
    x_next = X + (sigma_next - sigma) * derivative_at(request, sigma)
    return Steps(new_state={0: x_next}, input_scale=input_scale(sigma), needs_noise=np.zeros(len(i), dtype=bool))


def _ancestral_grid(request: ScheduleRequest) -> Grid:
    timesteps, sigmas = spaced_levels(request)
    sigmas = rounded(np.append(sigmas, 0.0))
    return Grid(timesteps=timesteps, sigmas=sigmas, initial_noise=initial_noise(request, sigmas))


def ancestral_split(sigma: Array, sigma_next: Array) -> tuple[Array, Array]:
    """Return the sigma to step down to, and that of the noise to add: ``down**2 + up**2 = sigma_next**2``."""
    down = sigma_next**2 / sigma
    up = sigma_next * np.sqrt(1 - (sigma_next / sigma) ** 2)
    return down, up


def _ancestral_steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    sigma = grid.sigmas[i]
    down, up = ancestral_split(sigma, grid.sigmas[i + 1])
    x_next = X + (down - sigma) * derivative_at(request, sigma) + up * NOISE
    return Steps(new_state={0: x_next}, input_scale=input_scale(sigma), needs_noise=np.ones(len(i), dtype=bool))


_EULER_OPTIONS = {
    **BETAS,
    "prediction_type": "epsilon",
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "sigma_min": None,
    "sigma_max": None,
    "timestep_spacing": "linspace",
    "timestep_type": "discrete",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
    "final_sigmas_type": "zero",
}

_ANCESTRAL_OPTIONS = {
    **BETAS,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}

EULER = Solver(
    name="EulerDiscreteScheduler",
    short_names={"euler": {}, "euler_karras": {"use_karras_sigmas": True}},
    options=OptionTable(defaults=_EULER_OPTIONS),
    grid=_euler_grid,
    steps=_euler_steps,
    level=sigma_level,
    takes=frozenset({"timesteps", "sigmas"}),
)

EULER_ANCESTRAL = Solver(
    name="EulerAncestralDiscreteScheduler",
    short_names={"euler_a": {}, "euler_ancestral": {}},
    options=OptionTable(defaults=_ANCESTRAL_OPTIONS),
    grid=_ancestral_grid,
    steps=_ancestral_steps,
    level=sigma_level,
)
