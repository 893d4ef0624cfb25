"""UniPC: a predictor, and a corrector that costs no evaluation (Zhao et al., https://arxiv.org/abs/2302.04867).

State: the latent, the sample before the last step, and the last three predictions. When the network has been
evaluated at the predicted latent, the step that led there is computed again with this new prediction (the corrector,
UniC), and the next step starts from the corrected sample (the predictor, UniP).
"""

import numpy as np

from .combinations import Array, Indices, X, state
from .dpm_step import half_log_snr
from .log_snr import levels_at, log_snr_grid, variance_preserving_level
from .predicted import noise_at, signal_and_noise, x0_at
from .singles import Singles, expm1
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable

__all__ = ["UNIPC"]

LAST_SAMPLE = 1
PREDICTIONS = 2


def _bh_update(
    request: ScheduleRequest,
    x: Array,
    m: tuple[Array, ...],
    ratios: list[Singles],
    order: Indices,
    m_t: Array | None = None,
) -> Array:
    """Return ``x`` taken from level s0 to level t by UniP, or by UniC when the prediction ``m_t`` at t is known.

    Args:
        request: its ``predict_x0`` and ``solver_type`` (which B(h)) are read.
        x: combination at s0.
        m: predictions at s0, s1, s2.
        ratios: noise-to-signal ratios at t, s0, s1, s2, each ``[N]``.
        order: ``[N]``, 1 to 3.
        m_t: prediction at t.

    """
    predicts_x0 = request.options.predict_x0
    levels = [signal_and_noise(ratio) for ratio in ratios]
    (a_t, s_t), (a_s, s_s) = levels[:2]
    lambda_t, lambda_s, *older = (half_log_snr(level) for level in levels)
    h = lambda_t - lambda_s
    hh = -h if predicts_x0 else h
    phi_1 = expm1(hh)
    B_h = hh if request.options.solver_type == "bh1" else phi_1
    drift, pull = (s_t / s_s, a_t) if predicts_x0 else (a_t / a_s, s_t)
    moved: Array = drift * x - pull * phi_1 * m[0]

    r = [(lambda_i - lambda_s) / h for lambda_i in older]
    D = [(m_i - m[0]) / r_i for m_i, r_i in zip(m[1:], r, strict=True)]
    result = moved
    for p in (1, 2, 3):
        chosen = order == p
        terms = D[: p - 1] if m_t is None else [*D[: p - 1], m_t - m[0]]
        if not terms or not chosen.any():
            continue
        rho = np.zeros((len(terms), len(order)), dtype=np.float32)
        rho[:, chosen] = _weights([r_i[chosen] for r_i in r[: p - 1]], hh[chosen], B_h[chosen], m_t is not None)
        residual = sum((weight * term for weight, term in zip(rho, terms, strict=True)), np.zeros_like(moved))
        result = np.where(chosen, moved - pull * B_h * residual, result)
    return result


def _weights(r: list[Singles], hh: Singles, B_h: Singles, corrector: bool) -> Singles:
    """Solve the order conditions R rho = b (equations 5 and 10); the lowest order has a fixed weight of one half."""
    if len(r) + corrector == 1:
        return np.full((1, len(hh)), 0.5, dtype=np.float32)
    points = np.stack([*r, np.ones_like(hh)] if corrector else r)
    p = len(points)
    R = np.stack([points**k for k in range(p)])
    b = []
    phi_k, factorial = expm1(hh) / hh - 1, 1
    for k in range(1, p + 1):
        b.append(phi_k * factorial / B_h)
        factorial *= k + 1
        phi_k = phi_k / hh - 1 / factorial
    try:
        solved: Singles = np.linalg.solve(R.transpose(2, 0, 1), np.stack(b, axis=1)[:, :, None])
    except np.linalg.LinAlgError:  # equal noise levels, or a step of infinite length; NaN is refused by make_schedule
        return np.full((p, len(hh)), np.nan, dtype=np.float32)
    return solved[:, :, 0].T


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    options = request.options
    levels = [levels_at(grid, i, back) for back in range(-1, 4)]
    predicted = x0_at if options.predict_x0 else noise_at
    m_t = predicted(options.prediction_type, *signal_and_noise(levels[1]))
    history = state(PREDICTIONS), state(PREDICTIONS + 1), state(PREDICTIONS + 2)

    since_start = i - i[0]
    order = np.minimum(options.solver_order, since_start + 1)
    if options.lower_order_final:
        order = np.minimum(order, len(grid.timesteps) - i)
    corrected = _bh_update(request, state(LAST_SAMPLE), history, levels[1:], np.roll(order, 1), m_t)
    correct = (since_start > 0) & ~np.isin(i - 1, options.disable_corrector)
    sample = np.where(correct, corrected, X)
    x_next = _bh_update(request, sample, (m_t, *history[:2]), levels[:4], order)
    return Steps(
        new_state={0: x_next, LAST_SAMPLE: sample, **dict(enumerate((m_t, *history[:2]), PREDICTIONS))},
        input_scale=np.ones(len(i)),
        needs_noise=np.zeros(len(i), dtype=bool),
    )


UNIPC = Solver(
    name="UniPCMultistepScheduler",
    short_names={"unipc": {}, "uni_pc": {}, "unipc_karras": {"use_karras_sigmas": True}},
    options=OptionTable(
        defaults={
            **BETAS,
            "solver_order": 2,
            "prediction_type": "epsilon",
            "thresholding": False,
            "dynamic_thresholding_ratio": 0.995,
            "sample_max_value": 1.0,
            "predict_x0": True,
            "solver_type": "bh2",
            "lower_order_final": True,
            "disable_corrector": [],
            "solver_p": None,
            "use_karras_sigmas": False,
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "use_flow_sigmas": False,
            "flow_shift": 1.0,
            "timestep_spacing": "linspace",
            "steps_offset": 0,
            "final_sigmas_type": "zero",
            "rescale_betas_zero_snr": False,
            "use_dynamic_shifting": False,
            "time_shift_type": "exponential",
            "sigma_min": None,
            "sigma_max": None,
            "shift_terminal": None,
        },
        choices={"solver_order": (1, 2, 3), "solver_type": ("bh1", "bh2")},
        synonyms={"solver_type": {"midpoint": "bh2", "heun": "bh2", "logrho": "bh2"}},
    ),
    grid=log_snr_grid,
    steps=_steps,
    level=variance_preserving_level,
)
