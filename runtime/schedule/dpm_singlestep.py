"""DPM-Solver and DPM-Solver++, singlestep, of order 1 to 3 (references in :mod:`.dpm_multistep`).

Evaluations come in groups of 1, 2 or 3. After the k-th evaluation of a group, the latent is computed again from the
beginning of the group, now with k predictions. So a group of k evaluations is one step of order k;
``num_inference_steps`` counts evaluations.
"""

import numpy as np

from .combinations import NOISE, Array, Indices, X, state
from .dpm_step import DPM_SYNONYMS, half_log_snr, step_factors
from .log_snr import dpm_grid, levels_at, variance_preserving_level
from .predicted import noise_at, signal_and_noise, x0_at
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable, SolverOptions

__all__ = ["DPM_SINGLESTEP"]

START, PREDICTIONS = 1, 2


def _orders(options: SolverOptions, steps: int) -> Indices:
    """Return the order of every evaluation.

    There are groups of the full order, then a shorter group with the remaining evaluations. If none remain, but the
    order is to be low at the end, the last group is split. As in diffusers, ``lower_order_final`` counts as set if the
    steps do not divide into groups, or the last step goes to zero noise.
    """
    order, to_zero = options.solver_order, options.final_sigmas_type == "zero"
    group = list(range(1, order + 1))
    full_groups, rest = divmod(steps, order)
    if options.lower_order_final or rest or to_zero:
        if rest == 0 and order > 1:
            tail = [*range(1, order), 1]
            orders = group * (full_groups - 1) + tail
        else:
            orders = group * full_groups + list(range(1, rest + 1))
    else:
        orders = group * full_groups
    if to_zero:
        orders[-1] = 1
    return np.array(orders)


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    options = request.options
    order = np.minimum(_orders(options, len(grid.timesteps))[i], i - i[0] + 1)
    predicted = x0_at if options.algorithm_type.endswith("++") else noise_at
    m = (
        predicted(options.prediction_type, *signal_and_noise(levels_at(grid, i))),
        state(PREDICTIONS),
        state(PREDICTIONS + 1),
    )
    sample = np.where(order == 1, X, state(START))
    chosen = [_step(options, grid, i, sample, m, k) for k in range(1, options.solver_order + 1)]
    return Steps(
        new_state={0: np.choose(order - 1, chosen), START: sample, PREDICTIONS: m[0], PREDICTIONS + 1: m[1]},
        input_scale=np.ones(len(i)),
        needs_noise=np.full(len(i), options.algorithm_type.startswith("sde")),
    )


def _step(options: SolverOptions, grid: Grid, i: Indices, sample: Array, m: tuple[Array, ...], order: int) -> Array:
    """Return the latent computed from a group's beginning at its ``order``-th evaluation; ``m`` is newest first."""
    end, *levels = (signal_and_noise(levels_at(grid, i, back)) for back in range(-1, order))
    f = step_factors(options.algorithm_type, levels[-1], end)
    moved: Array = f.A * sample + f.B_0 * m[order - 1] + f.C * NOISE
    lambda_start = half_log_snr(levels[-1])
    h = half_log_snr(end) - lambda_start
    r = [(half_log_snr(level) - lambda_start) / h for level in levels]
    midpoint = options.solver_type == "midpoint"
    if order == 2:
        moved = moved + (f.B_1_midpoint if midpoint else f.B_1_exact) * ((1 / r[0]) * (m[0] - m[1]))
    if order == 3:
        D1_0, D1_1 = (1 / r[1]) * (m[1] - m[2]), (1 / r[0]) * (m[0] - m[2])
        D1 = D1_1 if midpoint else (r[0] * D1_0 - r[1] * D1_1) / (r[0] - r[1])
        moved = moved + f.B_1_exact * D1
        if not midpoint:
            moved = moved + f.B_2 * (2 * (D1_1 - D1_0) / (r[0] - r[1]))
    return moved


def _grid(request: ScheduleRequest) -> Grid:
    return dpm_grid(request, round_cosine=True)


DPM_SINGLESTEP = Solver(
    name="DPMSolverSinglestepScheduler",
    short_names={"dpmpp_2s": {}, "dpmpp_2s_karras": {"use_karras_sigmas": True}, "dpmpp_3s": {"solver_order": 3}},
    options=OptionTable(
        defaults={
            **BETAS,
            "solver_order": 2,
            "prediction_type": "epsilon",
            "thresholding": False,
            "dynamic_thresholding_ratio": 0.995,
            "sample_max_value": 1.0,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": False,
            "use_karras_sigmas": False,
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "use_flow_sigmas": False,
            "flow_shift": 1.0,
            "final_sigmas_type": "zero",
            "lambda_min_clipped": -float("inf"),
            "variance_type": None,
            "use_dynamic_shifting": False,
            "time_shift_type": "exponential",
        },
        choices={
            "solver_order": (1, 2, 3),
            "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver++"),
            "solver_type": ("midpoint", "heun"),
        },
        synonyms=DPM_SYNONYMS,
        unused=frozenset({"variance_type"}),
    ),
    grid=_grid,
    steps=_steps,
    level=variance_preserving_level,
    takes=frozenset({"timesteps"}),
)
