"""Ancestral sampling of denoising diffusion probabilistic models (Ho et al., https://arxiv.org/abs/2006.11239)."""

import numpy as np

from .combinations import NOISE, Array, Indices, X
from .ddim import alpha_bar, timestep_level
from .predicted import clipped_if_configured, x0_at
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable
from .spacing import spaced_timesteps

__all__ = ["DDPM"]


def _grid(request: ScheduleRequest) -> Grid:
    if request.timesteps is not None:
        return Grid(timesteps=np.trunc(request.timesteps))
    return Grid(timesteps=spaced_timesteps(request.options, request.step_count).round())


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    options = request.options
    t = grid.timesteps[i]
    previous = np.append(grid.timesteps, -1)[i + 1]
    bar, bar_prev = alpha_bar(request, t), alpha_bar(request, previous)
    alpha = bar / bar_prev
    beta = 1 - alpha
    x0, unclipped_x0 = clipped_if_configured(request, x0_at(options.prediction_type, np.sqrt(bar), np.sqrt(1 - bar)))
    # equation 7
    mean = np.sqrt(bar_prev) * beta / (1 - bar) * x0 + np.sqrt(alpha) * (1 - bar_prev) / (1 - bar) * X
    deviation = np.where(t > 0, _deviation(options.variance_type, beta, bar, bar_prev), 0.0)
    new_state = {0: mean + deviation * NOISE}
    return Steps(new_state=new_state, input_scale=np.ones(len(i)), needs_noise=t > 0, unclipped_x0=unclipped_x0)


def _deviation(variance_type: str | None, beta: Array, bar: Array, bar_prev: Array) -> Array:
    """Section 3.2: beta itself, or the smallest variance that is consistent (at least 1e-20, as in diffusers)."""
    if variance_type == "fixed_large":
        return np.sqrt(beta)
    return np.sqrt(np.maximum((1 - bar_prev) / (1 - bar) * beta, 1e-20))


DDPM = Solver(
    name="DDPMScheduler",
    short_names={"ddpm": {}},
    options=OptionTable(
        defaults={
            **BETAS,
            "variance_type": "fixed_small",
            "clip_sample": True,
            "prediction_type": "epsilon",
            "thresholding": False,
            "dynamic_thresholding_ratio": 0.995,
            "clip_sample_range": 1.0,
            "sample_max_value": 1.0,
            "timestep_spacing": "leading",
            "steps_offset": 0,
            "rescale_betas_zero_snr": False,
        },
        choices={
            "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid"),
            # "fixed_large_log" takes the square root of a negative number in diffusers
            "variance_type": ("fixed_small", "fixed_small_log", "fixed_large"),
        },
    ),
    grid=_grid,
    steps=_steps,
    level=timestep_level,
    takes=frozenset({"timesteps"}),
)
