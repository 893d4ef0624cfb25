"""Linear multistep: Adams-Bashforth of order 4 on uneven sigmas, k-diffusion's ``sample_lms``.

The slopes of the last four evaluations are interpolated by a polynomial in sigma, which is integrated over the step.
"""

import numpy as np

from .combinations import Array, Indices, X, state
from .sigma_space import derivative_at, initial_noise, input_scale, sigma_level, spaced_levels
from .singles import rounded
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable

__all__ = ["LMS"]

ORDER = 4

_NODES = np.array([-1.0, 1.0]) / np.sqrt(3.0)
"""Gauss-Legendre nodes (both weights are 1): exact for cubics, which is what is integrated."""


def _grid(request: ScheduleRequest) -> Grid:
    timesteps, sigmas = spaced_levels(request)
    sigmas = rounded(np.append(sigmas, 0.0))
    return Grid(timesteps=rounded(timesteps), sigmas=sigmas, initial_noise=initial_noise(request, sigmas))


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    sigma, sigma_next = grid.sigmas[i], grid.sigmas[i + 1]
    slopes = derivative_at(request, sigma), state(1), state(2), state(3)
    x_next = X + sum(_weight(grid.sigmas, i, k, sigma, sigma_next) * slope for k, slope in enumerate(slopes))
    return Steps(
        new_state={0: x_next, 1: slopes[0], 2: slopes[1], 3: slopes[2]},
        input_scale=input_scale(sigma),
        needs_noise=np.zeros(len(i), dtype=bool),
    )


def _weight(sigmas: Array, i: Indices, k: int, start: Array, end: Array) -> Array:
    """Integrate over the step the Lagrange polynomial that is 1 at ``sigmas[i - k]`` and 0 at the other nodes.

    The order grows with the index in the grid. With ``strength`` or ``denoising_start`` the first evaluations do not
    run; their slopes count as zero, as in diffusers.
    """
    half, middle = (end - start) / 2, (end + start) / 2
    points = middle + half * _NODES[:, None]
    value = np.ones_like(points)
    for j in range(ORDER):
        if j != k:
            used = i >= j
            node_j, node_k = sigmas[np.maximum(i - j, 0)], sigmas[np.maximum(i - k, 0)]
            value = np.where(used, value * (points - node_j) / np.where(used, node_k - node_j, 1), value)
    return np.where(i >= k, half * value.sum(axis=0), 0.0)


LMS = Solver(
    name="LMSDiscreteScheduler",
    short_names={"lms": {}, "lms_karras": {"use_karras_sigmas": True}},
    options=OptionTable(
        defaults={
            **BETAS,
            "use_karras_sigmas": False,
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "prediction_type": "epsilon",
            "timestep_spacing": "linspace",
            "steps_offset": 0,
        }
    ),
    grid=_grid,
    steps=_steps,
    level=sigma_level,
)
