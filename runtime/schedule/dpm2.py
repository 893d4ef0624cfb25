"""DPM-Solver-2 in k-diffusion's form, plain and ancestral (https://arxiv.org/abs/2206.00927, algorithm 1).

Two evaluations per step: half a step in log sigma, then the full step with the slope at its middle.
"""

import numpy as np

from .combinations import NOISE, Array, Indices, X, state
from .euler import ancestral_split
from .sigma_space import derivative_at, initial_noise, input_scale, sigma_level, spaced_levels
from .singles import rounded
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable
from .spacing import timestep_from_sigma

__all__ = ["DPM2", "DPM2_ANCESTRAL", "interleaved", "step_ends"]

START = 1


def step_ends(grid: Grid, i: Indices) -> tuple[Array, Array]:
    """Return the sigmas at the two ends of the step that evaluation ``i`` belongs to.

    The grid holds each sigma but the first twice: the evaluation in the middle of a step has the sigma of the step's
    end, as in diffusers.
    """
    start = i - i % 2
    return grid.sigmas[start], grid.sigmas[start + 1]


def interleaved(outer: Array, inner: Array) -> Array:
    """Merge ``a b c`` and ``x y`` into ``a x b y c``."""
    merged = np.empty(len(outer) + len(inner))
    merged[::2], merged[1::2] = outer, inner
    return merged


def _middle(sigma: Array, sigma_end: Array) -> Array:
    return np.sqrt(sigma * sigma_end)


def _deterministic_end(_sigma: Array, sigma_next: Array) -> tuple[Array, Array]:
    return sigma_next, np.zeros_like(sigma_next)


def _grid(request: ScheduleRequest, ancestral: bool) -> Grid:
    timesteps, sigmas = spaced_levels(request, rounded_karras=True)
    sigmas = rounded(sigmas)
    end = ancestral_split(sigmas[:-1], sigmas[1:])[0] if ancestral else sigmas[1:]
    middle = timestep_from_sigma(_middle(sigmas[:-1], end).astype(np.float32), request.levels)
    doubled = np.append(np.repeat(sigmas, 2)[1:], [0.0, 0.0])
    return Grid(timesteps=interleaved(timesteps, middle), sigmas=doubled, initial_noise=initial_noise(request, sigmas))


def _steps(request: ScheduleRequest, grid: Grid, i: Indices, ancestral: bool) -> Steps:
    sigma, sigma_next = step_ends(grid, i)
    end, up = ancestral_split(sigma, sigma_next) if ancestral else _deterministic_end(sigma, sigma_next)
    middle = _middle(sigma, end)
    first = i % 2 == 0
    to_middle = X + (middle - sigma) * derivative_at(request, sigma)
    to_end = state(START) + (end - sigma) * derivative_at(request, middle) + up * NOISE
    return Steps(
        new_state={0: np.where(first, to_middle, to_end), START: X},
        input_scale=input_scale(np.where(first, sigma, middle)),
        needs_noise=~first if ancestral else np.zeros(len(i), dtype=bool),
    )


def _plain_grid(request: ScheduleRequest) -> Grid:
    return _grid(request, ancestral=False)


def _ancestral_grid(request: ScheduleRequest) -> Grid:
    return _grid(request, ancestral=True)


def _plain_steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    return _steps(request, grid, i, ancestral=False)


def _ancestral_steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    return _steps(request, grid, i, ancestral=True)


_OPTIONS = {
    **BETAS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
}

DPM2 = Solver(
    name="KDPM2DiscreteScheduler",
    short_names={"dpm2": {}, "dpm2_karras": {"use_karras_sigmas": True}},
    options=OptionTable(defaults=_OPTIONS),
    grid=_plain_grid,
    steps=_plain_steps,
    level=sigma_level,
    order=2,
)

DPM2_ANCESTRAL = Solver(
    name="KDPM2AncestralDiscreteScheduler",
    short_names={"dpm2_a": {}, "dpm2_ancestral": {}, "dpm2_a_karras": {"use_karras_sigmas": True}},
    options=OptionTable(defaults=_OPTIONS),
    grid=_ancestral_grid,
    steps=_ancestral_steps,
    level=sigma_level,
    order=2,
)
