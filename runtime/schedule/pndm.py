"""Pseudo numerical methods: PLMS, with or without a Runge-Kutta start (Liu et al., https://arxiv.org/abs/2202.09778).

Without the Runge-Kutta start (``skip_prk_steps``, as in Stable Diffusion's config) the first step is taken twice, the
second time with the mean of both slopes, so that n steps are n + 1 evaluations. With it, the first three steps take
four evaluations each.

State: the latent; the sample that a step began with; the last three network outputs. A Runge-Kutta step needs one
tensor more. So at its third evaluation the sample is recovered from the latent; if an image is blended into the latent
just before, the result differs from diffusers'.
"""

import numpy as np

from ...engines.errors import UsageError
from .combinations import OUTPUT, Array, Indices, X, state
from .ddim import alpha_bar, timestep_level
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable
from .spacing import spaced_timesteps

__all__ = ["PNDM"]

SAVED, OUTPUTS = 1, 2
RUNGE_KUTTA_STEPS = 3
RUNGE_KUTTA = 4 * RUNGE_KUTTA_STEPS


def _stride(request: ScheduleRequest) -> int:
    return request.options.num_train_timesteps // request.step_count


def _runge_kutta_timesteps(request: ScheduleRequest) -> Array:
    """Return the timesteps of the Runge-Kutta steps, ``[12]``: start, middle, middle, end of each."""
    spaced = spaced_timesteps(request.options, request.step_count).round()
    starts, ends = spaced[:RUNGE_KUTTA_STEPS], spaced[1 : RUNGE_KUTTA_STEPS + 1]
    middles = ends + _stride(request) // 2
    return np.stack([starts, middles, middles, ends], axis=1).ravel()


def _grid(request: ScheduleRequest) -> Grid:
    spaced = spaced_timesteps(request.options, request.step_count).round()
    if request.options.skip_prk_steps:
        return Grid(timesteps=np.insert(spaced, min(1, len(spaced) - 1), spaced[1:2]))
    if request.step_count <= RUNGE_KUTTA_STEPS:
        raise UsageError(
            f"{request.solver} starts with {RUNGE_KUTTA_STEPS} Runge-Kutta steps and needs at least "
            f"{RUNGE_KUTTA_STEPS + 1} steps, not {request.step_count}; pass skip_prk_steps=True or more steps"
        )
    return Grid(timesteps=np.append(_runge_kutta_timesteps(request), spaced[RUNGE_KUTTA_STEPS:]))


def _transfer(request: ScheduleRequest, t: Array, t_prev: Array) -> tuple[Array, Array]:
    """Equation 11: factors of the sample and of the combined outputs when going from ``t`` to ``t_prev``."""
    a, a_prev = alpha_bar(request, t), alpha_bar(request, t_prev)
    keep = np.sqrt(a_prev / a)
    pull = -(a_prev - a) / (a * np.sqrt(1 - a_prev) + np.sqrt(a * (1 - a) * a_prev))
    if request.options.prediction_type == "v_prediction":
        return keep + pull * np.sqrt(1 - a), pull * np.sqrt(a)
    return keep, pull


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    count = i - i[0]
    multistep = _multistep(request, grid.timesteps[i], count)
    if request.options.skip_prk_steps:
        new_state, step = multistep, np.maximum(count - 1, 0)
    else:
        start = _runge_kutta(request, grid.timesteps[i], count)
        new_state = {k: np.where(count < RUNGE_KUTTA, start[k], multistep[k]) for k in multistep}
        step = np.where(count < RUNGE_KUTTA, count // 4, count - RUNGE_KUTTA + RUNGE_KUTTA_STEPS)
    return Steps(
        new_state=new_state,
        input_scale=np.ones(len(i)),
        needs_noise=np.zeros(len(i), dtype=bool),
        step_index=step,
    )


def _multistep(request: ScheduleRequest, t: Array, count: Indices) -> dict[int, Array]:
    """Adams-Bashforth (equation 12), of an order limited by the number of earlier outputs."""
    e = [state(OUTPUTS), state(OUTPUTS + 1), state(OUTPUTS + 2)]
    skipped = request.options.skip_prk_steps
    repeated = (count == 1) & skipped
    # the output of the repeated evaluation is not saved
    earlier_outputs = np.clip(count - 1, 0, 3) if skipped else np.full(len(count), 3)
    combined = np.choose(
        np.where(repeated, 4, earlier_outputs),
        [
            OUTPUT,
            (3 * OUTPUT - e[0]) / 2,
            (23 * OUTPUT - 16 * e[0] + 5 * e[1]) / 12,
            (55 * OUTPUT - 59 * e[0] + 37 * e[1] - 9 * e[2]) / 24,
            (OUTPUT + e[0]) / 2,
        ],
    )
    stride = _stride(request)
    keep, pull = _transfer(request, np.where(repeated, t + stride, t), np.where(repeated, t, t - stride))
    sample = np.where(repeated, state(SAVED), X)
    pushed = OUTPUT, e[0], e[1]
    outputs = {OUTPUTS + k: np.where(repeated, e[k], pushed[k]) for k in range(3)}
    return {0: keep * sample + pull * combined, SAVED: X, **outputs}


def _runge_kutta(request: ScheduleRequest, t: Array, count: Indices) -> dict[int, Array]:
    """Classical Runge-Kutta (equation 13); each of its four stages is one evaluation.

    Entry SAVED of the state is, after the first stage, the sample; after the second, the weighted sum of both outputs;
    after the third, the step's result without the last output's part.
    """
    stage = count % 4
    step = np.minimum(count // 4, RUNGE_KUTTA_STEPS - 1)
    half = _stride(request) // 2
    keep, pull = _transfer(request, _runge_kutta_timesteps(request)[4 * step], np.where(stage % 2, t, t - half))
    keep_before, pull_before = np.roll(keep, 1), np.roll(pull, 1)
    keep_after, pull_after = np.roll(keep, -1), np.roll(pull, -1)
    e = [state(OUTPUTS), state(OUTPUTS + 1), state(OUTPUTS + 2)]

    second_output = 3 * (state(SAVED) - e[0] / 6)
    recovered = (X - pull_before * second_output) / keep_before
    sample = np.choose(stage, [X, state(SAVED), recovered, X])
    but_last = keep_after * sample + pull_after * (state(SAVED) + OUTPUT / 3)
    saved = np.choose(stage, [X, e[0] / 6 + OUTPUT / 3, but_last, X])
    moved = np.where(stage == 3, state(SAVED) + pull / 6 * OUTPUT, keep * sample + pull * OUTPUT)
    pushed = OUTPUT, e[0], e[1]
    outputs = {OUTPUTS + k: np.where(stage == 0, pushed[k], e[k]) for k in range(3)}
    return {0: moved, SAVED: saved, **outputs}


PNDM = Solver(
    name="PNDMScheduler",
    short_names={"pndm": {}, "plms": {"skip_prk_steps": True}},
    options=OptionTable(
        defaults={
            **BETAS,
            "skip_prk_steps": False,
            "set_alpha_to_one": False,
            "prediction_type": "epsilon",
            "timestep_spacing": "leading",
            "steps_offset": 0,
        },
        choices={"prediction_type": ("epsilon", "v_prediction")},
    ),
    grid=_grid,
    steps=_steps,
    level=timestep_level,
)
