"""Arithmetic in float32, rounded as torch rounds it.

diffusers computes the factors of multistep solvers in float32, and with many steps they are differences of nearly
equal numbers: its rounding is then visible in the image (above 10 % in DEIS and UniPC of order 3, with 100 steps of
beta sigmas). Where that is so, the factors are computed here in float32 too, with the operations in the same order,
and only their combination is float64.

Sums, products and quotients round alike everywhere. Roots, logarithms and exponentials are rounded correctly here;
torch's are not always (measured on a CPU with AVX-512: 1 root in 6 and 1 logarithm in 25 is off by the last bit, and
other CPUs differ again), which limits how closely diffusers can be followed, by us and by itself.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Singles", "exp", "expm1", "log", "rounded", "singles"]

Singles = NDArray[np.float32]


def singles(values: NDArray[np.floating]) -> Singles:
    """Return the values in float32."""
    return values.astype(np.float32)


def rounded(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return float64 values that were rounded to float32, in which diffusers keeps its tables."""
    return values.astype(np.float32).astype(np.float64)


def log(x: Singles) -> Singles:
    """Natural logarithm, correctly rounded."""
    return singles(np.log(x, dtype=np.float64))


def exp(x: Singles) -> Singles:
    """Exponential, correctly rounded."""
    return singles(np.exp(x, dtype=np.float64))


def expm1(x: Singles) -> Singles:
    """``exp(x) - 1``, correctly rounded."""
    return singles(np.expm1(x, dtype=np.float64))
