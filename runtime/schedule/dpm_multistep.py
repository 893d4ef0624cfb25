"""DPM-Solver, DPM-Solver++ and their SDE variants, multistep, of order 1 to 3.

Lu et al., https://arxiv.org/abs/2206.00927 (DPM-Solver: integrates the predicted noise) and
https://arxiv.org/abs/2211.01095 (DPM-Solver++: integrates the predicted x0).
"""

from collections.abc import Mapping

import numpy as np

from ...engines.errors import UsageError
from .combinations import NOISE, Array, Indices, X, state
from .dpm_step import DPM_SYNONYMS, Factors, half_log_snr, step_factors
from .log_snr import dpm_grid, levels_at, variance_preserving_level
from .predicted import noise_at, signal_and_noise, x0_at
from .singles import Singles
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable

__all__ = ["DPM_MULTISTEP", "check_order", "multistep"]


def multistep(
    request: ScheduleRequest, grid: Grid, i: Indices, m0: Array, factors: Factors, input_scale: Array | None = None
) -> Steps:
    """Return steps that extrapolate from the last one to three predictions; the state holds the earlier two.

    Args:
        request: ``algorithm_type``, ``solver_type`` and the order options are read.
        grid: all evaluations.
        i: indices of the chosen evaluations, ``[N]``.
        m0: the prediction at this evaluation: the x0, or the noise, that the algorithm integrates.
        factors: returns signal and noise factors of the latent for a noise-to-signal ratio.
        input_scale: ``[N]``; None is ones.

    """
    options = request.options
    levels = [factors(levels_at(grid, i, back)) for back in (-1, 0, 1, 2)]
    f = step_factors(options.algorithm_type, levels[1], levels[0])
    D1, D1_corrected, D2 = _differences((m0, state(1), state(2)), [half_log_snr(level) for level in levels])
    order = _orders(request, grid, i)
    first = f.A * X + f.B_0 * m0 + f.C * NOISE
    second = first + (f.B_1_midpoint if options.solver_type == "midpoint" else f.B_1_exact) * D1
    third = first + f.B_1_exact * D1_corrected + f.B_2 * D2
    return Steps(
        new_state={0: np.where(order == 1, first, np.where(order == 2, second, third)), 1: m0, 2: state(1)},
        input_scale=np.ones(len(i)) if input_scale is None else input_scale,
        needs_noise=np.full(len(i), options.algorithm_type.startswith("sde")),
    )


def _differences(m: tuple[Array, Array, Array], lambdas: list[Singles]) -> tuple[Array, Array, Array]:
    """Backward differences of the predictions ``m`` made at levels s0, s1, s2, for a step from s0 to t.

    Args:
        m: predictions, newest first.
        lambdas: half log SNR at t, s0, s1, s2, each ``[N]``.

    Returns:
        First difference over two points, first difference corrected by the third point, second difference.

    """
    t, s0, s1, s2 = lambdas
    h, h_0, h_1 = t - s0, s0 - s1, s1 - s2
    r0, r1 = h_0 / h, h_1 / h
    D1_0, D1_1 = (1 / r0) * (m[0] - m[1]), (1 / r1) * (m[1] - m[2])
    share = np.where(h == 0, h_0 / (h_0 + h_1), r0 / (r0 + r1))
    change = D1_0 - D1_1
    return D1_0, D1_0 + share * change, (1 / (r0 + r1)) * change


def _orders(request: ScheduleRequest, grid: Grid, i: Indices) -> Indices:
    """Return the order of each step: limited by the number of earlier steps, and lower at the end by the options."""
    options = request.options
    total = len(grid.timesteps)
    order: Indices = np.minimum(options.solver_order, i - i[0] + 1)
    short = options.lower_order_final and total < 15
    if options.euler_at_final or short or options.final_sigmas_type == "zero":
        order = np.where(i == total - 1, 1, order)
    if short:
        order = np.where(i == total - 2, np.minimum(order, 2), order)
    return order


def check_order(request: ScheduleRequest, orders_by_algorithm: Mapping[str, int]) -> None:
    """Check that the chosen algorithm has the chosen order.

    Raises:
        UsageError: the order is above the algorithm's highest.

    """
    options = request.options
    highest = orders_by_algorithm.get(options.algorithm_type, 3)
    if options.solver_order > highest:
        raise UsageError(
            f"{request.solver}: algorithm_type={options.algorithm_type!r} has no order {options.solver_order}; "
            f"pass solver_order={highest} or less"
        )


def _grid(request: ScheduleRequest) -> Grid:
    check_order(request, {"sde-dpmsolver": 2})
    return dpm_grid(request, round_cosine=False)


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    options = request.options
    predicted = x0_at if options.algorithm_type.endswith("++") else noise_at
    m0 = predicted(options.prediction_type, *signal_and_noise(levels_at(grid, i)))
    return multistep(request, grid, i, m0, signal_and_noise)


DPM_MULTISTEP = Solver(
    name="DPMSolverMultistepScheduler",
    short_names={
        "dpmpp_2m": {},
        "dpmpp_2m_karras": {"use_karras_sigmas": True},
        "dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++"},
        "dpmpp_2m_sde_karras": {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
        "dpmpp_3m": {"solver_order": 3},
        "dpmpp_3m_sde": {"solver_order": 3, "algorithm_type": "sde-dpmsolver++"},
        "dpmpp_3m_sde_karras": {"solver_order": 3, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    },
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
            "lower_order_final": True,
            "euler_at_final": False,
            "use_karras_sigmas": False,
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "use_lu_lambdas": False,
            "use_flow_sigmas": False,
            "flow_shift": 1.0,
            "final_sigmas_type": "zero",
            "lambda_min_clipped": -float("inf"),
            "variance_type": None,
            "timestep_spacing": "linspace",
            "steps_offset": 0,
            "rescale_betas_zero_snr": False,
            "use_dynamic_shifting": False,
            "time_shift_type": "exponential",
        },
        choices={
            "solver_order": (1, 2, 3),
            "algorithm_type": ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"),
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
