"""Denoising diffusion implicit models (Song, Meng, Ermon, https://arxiv.org/abs/2010.02502)."""

import numpy as np

from ...engines.errors import UsageError
from .combinations import NOISE, Array, Indices
from .levels import training_levels
from .predicted import clipped_if_configured, noise_at, x0_at
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable
from .spacing import spaced_timesteps

__all__ = ["DDIM", "alpha_bar", "timestep_level"]


def alpha_bar(request: ScheduleRequest, timesteps: Array) -> Array:
    """Return the share of signal variance at whole timesteps; a timestep below zero is the end of the last step.

    ``set_alpha_to_one`` decides whether the last step ends at a clean image or at the lowest trained noise level.

    Raises:
        UsageError: a timestep beyond those of training.

    """
    trained = training_levels(request.options, floor=False).alphas_cumprod.astype(np.float64)
    last = 1.0 if request.options.set_alpha_to_one else trained[0]
    indices = timesteps.astype(np.int64)
    if indices.size and indices.max() >= len(trained):
        raise UsageError(
            f"{request.solver}: timestep {indices.max()} is beyond the last training timestep {len(trained) - 1}; "
            "lower steps_offset or the number of steps"
        )
    return np.where(indices >= 0, trained[np.clip(indices, 0, None)], last)


def timestep_level(request: ScheduleRequest, grid: Grid, i: Indices) -> tuple[Array, Array]:
    """Signal and noise factors of a latent at evaluation ``i``, by its timestep."""
    level = alpha_bar(request, grid.timesteps[i])
    return np.sqrt(level), np.sqrt(1 - level)


def _grid(request: ScheduleRequest) -> Grid:
    timesteps = spaced_timesteps(request.options, request.step_count)
    return Grid(timesteps=timesteps.round())


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    options = request.options
    t = grid.timesteps[i]
    previous = t - options.num_train_timesteps // request.step_count
    a, a_prev = alpha_bar(request, t), alpha_bar(request, previous)
    x0, unclipped_x0 = clipped_if_configured(request, x0_at(options.prediction_type, np.sqrt(a), np.sqrt(1 - a)))
    eps = noise_at(options.prediction_type, np.sqrt(a), np.sqrt(1 - a))
    # equation 16, with its sigma_t: eta = 1 is DDPM, eta = 0 deterministic
    sigma = request.eta * np.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
    x_prev = np.sqrt(a_prev) * x0 + np.sqrt(1 - a_prev - sigma**2) * eps + sigma * NOISE
    needs_noise = np.full(len(i), request.eta > 0)
    return Steps(new_state={0: x_prev}, input_scale=np.ones(len(i)), needs_noise=needs_noise, unclipped_x0=unclipped_x0)


DDIM = Solver(
    name="DDIMScheduler",
    short_names={"ddim": {}},
    options=OptionTable(
        defaults={
            **BETAS,
            "clip_sample": True,
            "set_alpha_to_one": True,
            "steps_offset": 0,
            "prediction_type": "epsilon",
            "thresholding": False,
            "dynamic_thresholding_ratio": 0.995,
            "clip_sample_range": 1.0,
            "sample_max_value": 1.0,
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
        }
    ),
    grid=_grid,
    steps=_steps,
    level=timestep_level,
    takes=frozenset({"eta"}),
)
