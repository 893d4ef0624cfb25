"""unCLIP's sampling (Ramesh et al., https://arxiv.org/abs/2204.06125), with which priors denoise embeddings.

Its steps are DDPM's, from the last training timestep to the first.
"""

import numpy as np

from ...engines.errors import UsageError
from .combinations import NOISE, Indices, X
from .ddim import timestep_level
from .levels import BETA_SCHEDULES
from .predicted import clipped_if_configured, x0_at
from .singles import Singles
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import OptionTable

__all__ = ["UNCLIP"]


def _grid(request: ScheduleRequest) -> Grid:
    count = request.step_count
    if count < 2:
        raise UsageError(f"{request.solver} goes from the last timestep to the first, which takes at least 2 steps")
    apart = (request.options.num_train_timesteps - 1) / (count - 1)
    return Grid(timesteps=np.array([np.round(i * apart) for i in reversed(range(count))], np.float64))


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    """Equation 7 of DDPM (https://arxiv.org/abs/2006.11239), its factors in float32 as in diffusers.

    At the end 1 - alpha_bar is the difference of nearly equal numbers, so that rounding is visible: the last step
    multiplies by 1.0005.
    """
    t = grid.timesteps[i].astype(np.int64)
    previous = np.append(grid.timesteps, -1).astype(np.int64)[i + 1]
    betas = BETA_SCHEDULES["squaredcos_cap_v2"](0, 0, request.options.num_train_timesteps)
    trained = request.levels.alphas_cumprod
    bar, bar_prev = trained[t], np.where(previous >= 0, trained[previous], np.float32(1))
    beta: Singles = np.where(previous == t - 1, betas[t], 1 - bar / bar_prev)
    x0, unclipped_x0 = clipped_if_configured(
        request, x0_at(request.options.prediction_type, np.sqrt(bar), np.sqrt(1 - bar))
    )
    of_x0: Singles = np.sqrt(bar_prev) * beta / (1 - bar)
    of_x: Singles = np.sqrt(1 - beta) * (1 - bar_prev) / (1 - bar)
    variance: Singles = np.maximum((1 - bar_prev) / (1 - bar) * beta, np.float32(1e-20))
    new_state = {0: of_x0 * x0 + of_x * X + np.where(t > 0, np.sqrt(variance), 0.0) * NOISE}
    return Steps(new_state=new_state, input_scale=np.ones(len(i)), needs_noise=t > 0, unclipped_x0=unclipped_x0)


UNCLIP = Solver(
    name="UnCLIPScheduler",
    short_names={},
    options=OptionTable(
        defaults={
            "num_train_timesteps": 1000,
            "variance_type": "fixed_small_log",
            "clip_sample": True,
            "clip_sample_range": 1.0,
            "prediction_type": "epsilon",
            "beta_schedule": "squaredcos_cap_v2",
        },
        choices={
            "variance_type": ("fixed_small_log",),
            "prediction_type": ("epsilon", "sample"),
            "beta_schedule": ("squaredcos_cap_v2",),
        },
    ),
    grid=_grid,
    steps=_steps,
    level=timestep_level,
)
