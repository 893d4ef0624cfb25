"""Samplers for distilled models: LCM (https://arxiv.org/abs/2310.04378) and TCD (https://arxiv.org/abs/2402.19159).

Both jump to a predicted x0 (TCD: to a lower noise level on the same trajectory) and add fresh noise up to the
next level. Their timesteps are some of the ``original_inference_steps`` that the student was distilled on;
``timestep_spacing`` and ``steps_offset`` have no effect.
"""

from collections.abc import Mapping

import numpy as np

from ...engines.errors import UsageError
from .combinations import NOISE, Array, Indices, X
from .ddim import alpha_bar, timestep_level
from .predicted import clipped_if_configured, noise_at, x0_at
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable

__all__ = ["LCM", "TCD"]

SIGMA_DATA = 0.5
"""Standard deviation of the data in the boundary condition of consistency models."""


def _grid(request: ScheduleRequest) -> Grid:
    original = _distilled_timesteps(request)
    if request.timesteps is None:
        if request.step_count > len(original):
            raise UsageError(
                f"{request.solver}: {request.step_count} steps are more than original_inference_steps={len(original)}"
            )
        picked = np.floor(np.linspace(0, len(original), request.step_count, endpoint=False)).astype(np.int64)
        return Grid(timesteps=original[picked])
    timesteps = np.trunc(request.timesteps)
    return Grid(timesteps=timesteps, warnings=_unusual(request, timesteps, original))


def _distilled_timesteps(request: ScheduleRequest) -> Array:
    """Return the timesteps of the distillation, descending."""
    options = request.options
    count = options.original_inference_steps
    if not 1 <= count <= options.num_train_timesteps:
        raise UsageError(f"original_inference_steps must lie between 1 and {options.num_train_timesteps}, not {count}")
    return np.arange(count, 0, -1, dtype=np.float64) * (options.num_train_timesteps // count) - 1


def _unusual(request: ScheduleRequest, timesteps: Array, original: Array) -> tuple[str, ...]:
    """Return warnings, as diffusers gives them, of timesteps that the student was not distilled on."""
    warnings = []
    last = request.options.num_train_timesteps - 1
    if timesteps[0] != last:
        warnings.append(f"{request.solver}: the first timestep is {timesteps[0]:g}, not {last}")
    strange = [f"{t:g}" for t in timesteps[1:] if t not in original]
    if strange:
        warnings.append(f"{request.solver}: not among the timesteps of the distillation: {', '.join(strange)}")
    if len(timesteps) > len(original):
        warnings.append(
            f"{request.solver}: more timesteps ({len(timesteps)}) than in the distillation ({len(original)})"
        )
    return tuple(warnings)


def _lcm_steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    options = request.options
    t = grid.timesteps[i]
    t_next = np.append(grid.timesteps[1:], grid.timesteps[-1])[i]
    a, a_next = alpha_bar(request, t), alpha_bar(request, t_next)
    x0, unclipped_x0 = clipped_if_configured(request, x0_at(options.prediction_type, np.sqrt(a), np.sqrt(1 - a)))
    # boundary condition of the consistency function: c_skip -> 1 and c_out -> 0 as t -> 0
    scaled = t * options.timestep_scaling
    c_skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
    c_out = scaled / np.sqrt(scaled**2 + SIGMA_DATA**2)
    denoised = c_out * x0 + c_skip * X
    last = i == len(grid.timesteps) - 1
    x_next = np.where(last, denoised, np.sqrt(a_next) * denoised + np.sqrt(1 - a_next) * NOISE)
    return Steps(new_state={0: x_next}, input_scale=np.ones(len(i)), needs_noise=~last, unclipped_x0=unclipped_x0)


def _tcd_steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    options = request.options
    t = grid.timesteps[i]
    t_next = np.append(grid.timesteps, 0)[i + 1]
    # float32, because the product is rounded down to a whole timestep
    s = np.floor((1 - request.eta) * t_next.astype(np.float32)).astype(np.float64)
    a, a_s, a_next = alpha_bar(request, t), alpha_bar(request, s), alpha_bar(request, t_next)
    x0 = x0_at(options.prediction_type, np.sqrt(a), np.sqrt(1 - a))
    eps = noise_at(options.prediction_type, np.sqrt(a), np.sqrt(1 - a))
    x_s = np.sqrt(a_s) * x0 + np.sqrt(1 - a_s) * eps
    noisy = (i < len(grid.timesteps) - 1) & (request.eta > 0)
    ratio = a_next / a_s
    x_next = np.where(noisy, np.sqrt(ratio) * x_s + np.sqrt(1 - ratio) * NOISE, x_s)
    return Steps(new_state={0: x_next}, input_scale=np.ones(len(i)), needs_noise=noisy)


_DEFAULTS: Mapping[str, object] = {
    **BETAS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    "clip_sample": False,
    "clip_sample_range": 1.0,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "timestep_scaling": 10.0,
    "rescale_betas_zero_snr": False,
}
_UNUSED = frozenset({"timestep_spacing", "steps_offset", "set_alpha_to_one"})

LCM = Solver(
    name="LCMScheduler",
    short_names={"lcm": {}},
    options=OptionTable(defaults=_DEFAULTS, unused=_UNUSED),
    grid=_grid,
    steps=_lcm_steps,
    level=timestep_level,
    takes=frozenset({"timesteps"}),
)

TCD = Solver(
    name="TCDScheduler",
    short_names={"tcd": {}},
    options=OptionTable(defaults=_DEFAULTS, unused=_UNUSED | {"clip_sample", "clip_sample_range"}),
    grid=_grid,
    steps=_tcd_steps,
    level=timestep_level,
    takes=frozenset({"timesteps", "eta"}),
)
