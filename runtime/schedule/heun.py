"""Heun's method: algorithm 1 of https://arxiv.org/abs/2206.00364, without its added noise.

Two evaluations per step: an Euler step, then the same step again with the mean of the slopes at both ends. The
last step goes to zero noise, where there is no slope: it is an Euler step.
"""

import numpy as np

from .combinations import Indices, X, state
from .predicted import clipped_if_configured, denoised_at_sigma
from .sigma_space import (
    initial_noise,
    input_scale,
    sigma_level,
    spaced_levels,
    twice_but_first,
)
from .singles import rounded
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable

__all__ = ["HEUN"]

SLOPE, START = 1, 2


def _grid(request: ScheduleRequest) -> Grid:
    timesteps, sigmas = spaced_levels(request)
    sigmas = rounded(np.append(twice_but_first(sigmas), 0.0))
    return Grid(
        timesteps=rounded(twice_but_first(timesteps)), sigmas=sigmas, initial_noise=initial_noise(request, sigmas)
    )


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    sigma, sigma_next = grid.sigmas[i], grid.sigmas[i + 1]
    first = i % 2 == 0
    x0, unclipped_x0 = clipped_if_configured(request, denoised_at_sigma(request, sigma))
    slope = (X - x0) / sigma
    euler = X + (sigma_next - sigma) * slope
    # at the second evaluation sigma is the end of the step that began one evaluation earlier
    heun = state(START) + (sigma - grid.sigmas[i - 1]) * 0.5 * (state(SLOPE) + slope)
    return Steps(
        new_state={0: np.where(first, euler, heun), SLOPE: slope, START: X},
        input_scale=input_scale(sigma),
        needs_noise=np.zeros(len(i), dtype=bool),
        unclipped_x0=unclipped_x0,
    )


HEUN = Solver(
    name="HeunDiscreteScheduler",
    short_names={"heun": {}, "heun_karras": {"use_karras_sigmas": True}},
    options=OptionTable(
        defaults={
            **BETAS,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "prediction_type": "epsilon",
            "use_karras_sigmas": False,
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "clip_sample": False,
            "clip_sample_range": 1.0,
            "timestep_spacing": "linspace",
            "steps_offset": 0,
        },
        choices={"beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "exp")},
    ),
    grid=_grid,
    steps=_steps,
    level=sigma_level,
    order=2,
    takes=frozenset({"timesteps"}),
)
