"""Quantiles of the Beta(0.6, 0.6) distribution, which the runtime needs without SciPy."""

import math
from functools import lru_cache

import numpy as np

from .combinations import Array

__all__ = ["beta_quantiles"]

_SHAPE = 0.6
"""Both shape parameters, as in "Beta Sampling is All You Need" (https://arxiv.org/abs/2407.12173)."""

_TERMS = 48
"""Terms of the series; it is summed at x <= 1/2 only, so what is left out is below 2**-48."""


@lru_cache(maxsize=64)
def beta_quantiles(count: int) -> Array:
    """Return the quantiles at ``count`` equally spaced probabilities from 1 down to 0, ``[count]``, exact to 1e-12."""
    probability = 1 - np.linspace(0, 1, count)
    upper = probability > 0.5
    lower = _lower_quantile(np.where(upper, 1 - probability, probability))
    quantiles: Array = np.where(upper, 1 - lower, lower)
    quantiles.setflags(write=False)
    return quantiles


def _lower_quantile(probability: Array) -> Array:
    """Solve ``I_x(a, a) = p`` for p <= 1/2 by Newton's method in ``u = x**a``, of which I is almost linear."""
    a = _SHAPE
    beta = math.gamma(a) ** 2 / math.gamma(2 * a)
    n = np.arange(_TERMS)
    # I_x(a, b) = x**a / B(a, b) * sum (1-b)_n / n! * x**n / (a+n)    (DLMF 8.17.7)
    pochhammer = np.concatenate([[1.0], np.cumprod((1 - a + n[:-1]) / n[1:])])
    series = pochhammer / (a + n)
    u = probability * a * beta
    for _ in range(6):
        x = u ** (1 / a)
        error = u * np.polynomial.polynomial.polyval(x, series) - probability * beta
        slope = (1 - x) ** (a - 1) / a
        u = u - error / slope
    return u ** (1 / a)
