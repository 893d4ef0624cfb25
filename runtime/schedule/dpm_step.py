"""The exponential integrator that every DPM-Solver step is made of.

With ``lambda = log(alpha / sigma)`` and ``h`` its increase over a step, a step from level s to level t is
``x_t = A x + B_0 D_0 + B_1 D_1 + B_2 D_2 + C noise``. ``D_0`` is a prediction (of x0 for the "++" algorithms,
of the noise for the others), ``D_k`` an estimate of its k-th derivative by lambda, times ``h**k``.

In float32, operation by operation as in diffusers, for the reason given in :mod:`.singles`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .singles import Singles, exp, log

__all__ = ["DPM_SYNONYMS", "Factors", "StepFactors", "half_log_snr", "step_factors"]

Factors = Callable[[Singles], tuple[Singles, Singles]]
"""Signal and noise factors of a latent, from its noise-to-signal ratio."""

DPM_SYNONYMS = {
    "algorithm_type": {"deis": "dpmsolver++"},
    "solver_type": {"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
}
"""What the options of DEIS and UniPC become when DPM-Solver takes over their config."""


@dataclass(frozen=True, kw_only=True)
class StepFactors:
    """Factors of one step, each ``[N]``; B_1 for the midpoint rule and for the exact integral."""

    A: Singles
    B_0: Singles
    B_1_midpoint: Singles
    B_1_exact: Singles
    B_2: Singles
    C: Singles


def half_log_snr(level: tuple[Singles, Singles]) -> Singles:
    """Return lambda, half the logarithm of the signal-to-noise ratio, from signal and noise factors."""
    alpha, sigma = level
    return log(alpha) - log(sigma)


def step_factors(algorithm: str, start: tuple[Singles, Singles], end: tuple[Singles, Singles]) -> StepFactors:
    """Return the factors of a step between two levels, by algorithm.

    Noise may be zero at the end (``h`` is infinite then): only A, B_0, B_1_midpoint and C are finite in that case.

    Args:
        algorithm: ``dpmsolver``, ``dpmsolver++`` (https://arxiv.org/abs/2211.01095, algorithm 2), or their SDE
            variants ``sde-dpmsolver``, ``sde-dpmsolver++``.
        start: signal and noise factors at s.
        end: signal and noise factors at t.

    """
    (a_s, s_s), (a_t, s_t) = start, end
    h = half_log_snr(end) - half_log_snr(start)
    noise = np.zeros_like(h)
    if algorithm == "dpmsolver++":
        phi, scale, A = exp(-h) - 1, -a_t, s_t / s_s
        slope, curve = -(_over(phi, h, -1) + 1), (phi + h) / h**2 - 0.5
    elif algorithm == "dpmsolver":
        phi, scale, A = exp(h) - 1, -s_t, a_t / a_s
        slope, curve = _over(phi, h, 1) - 1, (phi - h) / h**2 - 0.5
    elif algorithm == "sde-dpmsolver++":
        phi, scale, A = 1 - exp(-2 * h), a_t, s_t / s_s * exp(-h)
        slope, curve = 1 - _over(phi, 2 * h, 1), (phi - 2 * h) / (2 * h) ** 2 - 0.5
        noise = s_t * np.sqrt(phi)
    else:
        phi, scale, A = 2 * (exp(h) - 1), -s_t, a_t / a_s
        slope, curve = _over(phi, h, 2) - 2, np.full_like(h, np.nan)  # order 3 is not defined
        noise = s_t * np.sqrt(exp(2 * h) - 1)
    return StepFactors(
        A=A,
        B_0=scale * phi,
        B_1_midpoint=scale * phi * 0.5,
        B_1_exact=scale * slope,
        B_2=scale * np.where(h == 0, np.float32(0), curve),
        C=noise,
    )


def _over(phi: Singles, h: Singles, limit: float) -> Singles:
    """``phi / h`` with its limit at h = 0, a step between equal noise levels."""
    return np.where(h == 0, np.float32(limit), phi / h)
