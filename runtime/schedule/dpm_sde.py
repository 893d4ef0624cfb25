"""DPM-Solver++ (2S) for the diffusion SDE, k-diffusion's ``sample_dpmpp_sde``.

Two evaluations per step: an ancestral step to the middle in log sigma, then the full ancestral step with the
x0 predicted there (https://arxiv.org/abs/2211.01095, algorithm 1, with r = 1/2).

Noise: diffusers takes both noises of a step from one Brownian path, through ``torchsde``, with a seed of its own. Here
each evaluation takes noise from the request's generator, and the two noises of a step are correlated as they are on
such a path: over the overlapping intervals [middle, start] and [end, start] the correlation is
``sqrt((start - middle) / (start - end))``. The distribution is the same, the numbers are not.
"""

import numpy as np

from .combinations import NOISE, Array, Indices, X, state
from .dpm2 import interleaved, step_ends
from .euler import ancestral_split
from .predicted import denoised_at_sigma
from .sigma_space import initial_noise, input_scale, sigma_level, spaced_levels, twice_but_first
from .singles import rounded
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable
from .spacing import timestep_from_sigma

__all__ = ["DPM_SDE"]

START, PATH = 1, 2


def _grid(request: ScheduleRequest) -> Grid:
    timesteps, sigmas = spaced_levels(request, exact=True)
    middle = timestep_from_sigma(np.sqrt(sigmas[:-1] * sigmas[1:]), request.levels)
    doubled = rounded(np.append(twice_but_first(sigmas), 0.0))
    return Grid(timesteps=interleaved(timesteps, middle), sigmas=doubled, initial_noise=initial_noise(request, doubled))


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    sigma, sigma_next = step_ends(grid, i)
    middle = np.sqrt(sigma * sigma_next)
    first = i % 2 == 0
    shared = (sigma - middle) / (sigma - sigma_next)
    path = np.sqrt(shared) * state(PATH) + np.sqrt(1 - shared) * NOISE

    to_middle = _ancestral_step(X, denoised_at_sigma(request, sigma), sigma, middle, NOISE)
    to_end = _ancestral_step(state(START), denoised_at_sigma(request, middle), sigma, sigma_next, path)
    to_zero = denoised_at_sigma(request, sigma)
    x_next = np.where(sigma_next == 0, to_zero, np.where(first, to_middle, to_end))
    return Steps(
        new_state={0: x_next, START: X, PATH: NOISE},
        input_scale=input_scale(np.where(first, sigma, middle)),
        needs_noise=sigma_next > 0,
    )


def _ancestral_step(x: Array, x0: Array, sigma: Array, sigma_next: Array, noise: Array) -> Array:
    down, up = ancestral_split(sigma, sigma_next)
    return down / sigma * x + (1 - down / sigma) * x0 + up * noise


DPM_SDE = Solver(
    name="DPMSolverSDEScheduler",
    short_names={"dpmpp_sde": {}, "dpmpp_sde_karras": {"use_karras_sigmas": True}},
    options=OptionTable(
        defaults={
            **BETAS,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "prediction_type": "epsilon",
            "use_karras_sigmas": False,
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "noise_sampler_seed": None,
            "timestep_spacing": "linspace",
            "steps_offset": 0,
        }
    ),
    grid=_grid,
    steps=_steps,
    level=sigma_level,
    order=2,
)
