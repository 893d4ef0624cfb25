"""DPM-Solver, DPM-Solver++ and their SDE variants, multistep, of order 1 to 3.

Lu et al., https://arxiv.org/abs/2206.00927 (DPM-Solver: integrates the predicted noise) and
https://arxiv.org/abs/2211.01095 (DPM-Solver++: integrates the predicted picture). With ``lambda = log(alpha /
sigma)`` and ``h`` its increase over a step, a step is ``x_t = A x + B_0 D_0 + B_1 D_1 + B_2 D_2 + C noise``, where
``D_k`` are backward differences of the predictions (divided by ``h**k`` and rescaled, as in the papers).
"""

from dataclasses import dataclass

import numpy as np

from ...engines.errors import UsageError
from .log_snr import half_log_snr, log_snr_grid, shifted, variance_preserving_level
from .options import BETAS, OptionTable
from .prediction import noise_at, picture_at, signal_and_noise
from .rows import NOISE, Array, Indices, X, slot
from .solver import Grid, Request, Solver, Steps

__all__ = ["DPM_MULTISTEP", "multistep_differences", "step_factors"]


@dataclass(frozen=True, kw_only=True)
class StepFactors:
    """Factors of one step from level s to level t; ``B_1`` is given for both ways of estimating the slope."""

    A: Array
    B_0: Array
    B_1_midpoint: Array
    B_1_exact: Array
    B_2: Array
    C: Array


def step_factors(algorithm: str, sigma_s: Array, sigma_t: Array) -> StepFactors:
    """Return the factors of a step between two noise-to-signal ratios, by algorithm.

    ``sigma_t`` may be zero (h is infinite then), in which case only A, B_0, B_1_midpoint and C are finite.
    """
    a_s, s_s = signal_and_noise(sigma_s)
    a_t, s_t = signal_and_noise(sigma_t)
    h = half_log_snr(sigma_t) - half_log_snr(sigma_s)
    noise = np.zeros_like(h)
    if algorithm == "dpmsolver++":
        phi, scale, A = np.expm1(-h), -a_t, s_t / s_s
        slope, curve = -(_over(phi, h, -1) + 1), (phi + h) / h**2 - 0.5
    elif algorithm == "dpmsolver":
        phi, scale, A = np.expm1(h), -s_t, a_t / a_s
        slope, curve = _over(phi, h, 1) - 1, (phi - h) / h**2 - 0.5
    elif algorithm == "sde-dpmsolver++":
        phi, scale, A = -np.expm1(-2 * h), a_t, s_t / s_s * np.exp(-h)
        slope, curve = 1 - _over(phi, 2 * h, 1), (phi - 2 * h) / (2 * h) ** 2 - 0.5
        noise = s_t * np.sqrt(phi)
    else:
        phi, scale, A = 2 * np.expm1(h), -s_t, a_t / a_s
        slope, curve = _over(phi, h, 2) - 2, np.full_like(h, np.nan)
        noise = s_t * np.sqrt(np.expm1(2 * h))
    curve = np.where(h == 0, 0, curve)
    return StepFactors(
        A=A,
        B_0=scale * phi,
        B_1_midpoint=0.5 * scale * phi,
        B_1_exact=scale * slope,
        B_2=scale * curve,
        C=noise,
    )


def _over(phi: Array, h: Array, limit: float) -> Array:
    """``phi / h`` with its limit at h = 0, a step between equal noise levels."""
    return np.where(h == 0, limit, phi / h)


def multistep_differences(m: tuple[Array, Array, Array], sigma: tuple[Array, ...]) -> tuple[Array, Array, Array]:
    """Backward differences of the predictions ``m0, m1, m2`` made at levels s0, s1, s2, for a step from s0 to t.

    Args:
        m: predictions, newest first.
        sigma: noise-to-signal ratios at t, s0, s1, s2.

    Returns:
        First difference over two points, first difference corrected by the third point, second difference.

    """
    t, s0, s1, s2 = (half_log_snr(level) for level in sigma)
    h = t - s0
    D1_0, D1_1 = (m[0] - m[1]) * (h / (s0 - s1)), (m[1] - m[2]) * (h / (s1 - s2))
    change = D1_0 - D1_1
    return D1_0, D1_0 + (s0 - s1) / (s0 - s2) * change, h / (s0 - s2) * change


def _grid(request: Request) -> Grid:
    options = request.options
    if options.algorithm_type in ("dpmsolver", "sde-dpmsolver") and options.final_sigmas_type == "zero":
        raise UsageError(
            f"{request.solver}: algorithm_type={options.algorithm_type!r} cannot step to zero noise; "
            "pass final_sigmas_type='sigma_min', or an algorithm_type ending in '++'"
        )
    return log_snr_grid(request)


def _orders(request: Request, grid: Grid, i: Indices) -> Indices:
    """Return the order of each step: what history allows, lowered at the end as the options say."""
    options = request.options
    total = len(grid.timesteps)
    order: Indices = np.minimum(options.solver_order, i - i[0] + 1)
    short = options.lower_order_final and total < 15
    if options.euler_at_final or short or options.final_sigmas_type == "zero":
        order = np.where(i == total - 1, 1, order)
    if short:
        order = np.where(i == total - 2, np.minimum(order, 2), order)
    return order


def _steps(request: Request, grid: Grid, i: Indices) -> Steps:
    options = request.options
    s0, t = grid.sigmas[i], grid.sigmas[i + 1]
    s1, s2 = shifted(grid.sigmas, i, 1), shifted(grid.sigmas, i, 2)
    predicted = picture_at if options.algorithm_type.endswith("++") else noise_at
    m = predicted(options.prediction_type, *signal_and_noise(s0)), slot(1), slot(2)
    f = step_factors(options.algorithm_type, s0, t)
    D1, D1_corrected, D2 = multistep_differences(m, (t, s0, s1, s2))

    order = _orders(request, grid, i)
    first = f.A * X + f.B_0 * m[0] + f.C * NOISE
    second = first + (f.B_1_midpoint if options.solver_type == "midpoint" else f.B_1_exact) * D1
    third = first + f.B_1_exact * D1_corrected + f.B_2 * D2
    x_t = np.where(order == 1, first, np.where(order == 2, second, third))
    draws = np.full(len(i), options.algorithm_type.startswith("sde"))
    return Steps(new_state={0: x_t, 1: m[0], 2: slot(1)}, input_scale=np.ones(len(i)), noise_draws=draws)


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
            "variance_type": (None,),
        },
        synonyms={
            "algorithm_type": {"deis": "dpmsolver++"},
            "solver_type": {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
        },
    ),
    grid=_grid,
    steps=_steps,
    level=variance_preserving_level,
    takes=frozenset({"timesteps"}),
)
