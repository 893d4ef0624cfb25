"""DEIS in log rho, multistep of order 1 to 3 (Zhang and Chen, https://arxiv.org/abs/2204.13902).

With ``rho = sigma / alpha`` the ODE is ``d(x / alpha) = eps d(rho)``. The last predictions of eps are interpolated by
a polynomial in log rho, which is integrated over the step in closed form.
"""

import numpy as np

from .combinations import Indices, X, state
from .dpm_step import half_log_snr
from .log_snr import levels_at, log_snr_grid, variance_preserving_level
from .predicted import noise_at, signal_and_noise
from .singles import Singles, exp
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import BETAS, OptionTable

__all__ = ["DEIS"]


def _steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    options = request.options
    (a_t, s_t), (a_s, s_s), *older = (signal_and_noise(levels_at(grid, i, back)) for back in (-1, 0, 1, 2))
    eps = noise_at(options.prediction_type, a_s, s_s), state(1), state(2)
    rho_t, *rho = (sigma / alpha for alpha, sigma in ((a_t, s_t), (a_s, s_s), *older))
    h = half_log_snr((a_t, s_t)) - half_log_snr((a_s, s_s))

    by_order = [a_t / a_s * X - s_t * (exp(h) - 1) * eps[0]]
    for n in (2, 3):
        weights = _log_rho_weights(rho[0], rho_t, rho[:n])
        by_order.append(a_t * (X / a_s + sum(weight * e for weight, e in zip(weights, eps, strict=False))))
    return Steps(
        new_state={0: np.choose(_orders(request, grid, i) - 1, by_order), 1: eps[0], 2: eps[1]},
        input_scale=np.ones(len(i)),
        needs_noise=np.zeros(len(i), dtype=bool),
    )


def _log_rho_weights(start: Singles, end: Singles, nodes: list[Singles]) -> list[Singles]:
    """Integrate d(rho) from start to end each Lagrange polynomial in log rho over two or three nodes.

    In float32 as in diffusers, see :mod:`.singles`; diffusers takes these logarithms from numpy.
    """

    def antiderivative(rho: Singles, node: Singles, others: list[Singles]) -> Singles:
        log, b, (c, *rest) = np.log(rho), np.log(node), [np.log(other) for other in others]
        if not rest:
            linear: Singles = rho * (-c + log - 1) / (b - c)
            return linear
        d = rest[0]
        numerator = rho * (c * (d - log + 1) - d * log + d + log**2 - 2 * log + 2)
        quadratic: Singles = numerator / ((b - c) * (b - d))
        return quadratic

    weights = []
    for k, node in enumerate(nodes):
        others = nodes[k + 1 :] + nodes[:k]
        weights.append(antiderivative(end, node, others) - antiderivative(start, node, others))
    return weights


def _orders(request: ScheduleRequest, grid: Grid, i: Indices) -> Indices:
    options = request.options
    remaining = len(grid.timesteps) - i
    order: Indices = np.minimum(options.solver_order, i - i[0] + 1)
    return np.minimum(order, remaining) if options.lower_order_final and len(grid.timesteps) < 15 else order


def _grid(request: ScheduleRequest) -> Grid:
    return log_snr_grid(request, final="sigma_min")


DEIS = Solver(
    name="DEISMultistepScheduler",
    short_names={"deis": {}, "deis_karras": {"use_karras_sigmas": True}},
    options=OptionTable(
        defaults={
            **BETAS,
            "solver_order": 2,
            "prediction_type": "epsilon",
            "thresholding": False,
            "dynamic_thresholding_ratio": 0.995,
            "sample_max_value": 1.0,
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "lower_order_final": True,
            "use_karras_sigmas": False,
            "use_exponential_sigmas": False,
            "use_beta_sigmas": False,
            "use_flow_sigmas": False,
            "flow_shift": 1.0,
            "timestep_spacing": "linspace",
            "steps_offset": 0,
            "use_dynamic_shifting": False,
            "time_shift_type": "exponential",
        },
        choices={"solver_order": (1, 2, 3), "algorithm_type": ("deis",), "solver_type": ("logrho",)},
        synonyms={
            "algorithm_type": {"dpmsolver": "deis", "dpmsolver++": "deis"},
            "solver_type": {"midpoint": "logrho", "heun": "logrho", "bh1": "logrho", "bh2": "logrho"},
        },
    ),
    grid=_grid,
    steps=_steps,
    level=variance_preserving_level,
)
