"""Floats as files hold them, to float32 and back, without a library that knows bfloat16 or float8."""

import functools

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOATS", "float32_from", "stored_from"]

F32 = NDArray[np.float32]

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}
"""safetensors' name of a type -> numpy's of what holds its bits."""
_AT_ONCE = 1 << 16
"""Numbers that are rounded together: all steps stay in the processor's cache, which takes a seventh of the time."""


def float32_from(dtype: str, bits: NDArray[np.generic]) -> F32:
    """Return values of one of :data:`FLOATS` as float32; those that already are may be a view."""
    if dtype == "BF16":  # the upper half of a float32
        wide = bits.view(np.uint16).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    if dtype.startswith("F8"):
        values: F32 = _float8(dtype)[bits.view(np.uint8)]
        return values
    return bits.astype(np.float32, copy=False)


def stored_from(values: F32, dtype: str) -> NDArray[np.generic]:
    """Return float32 values rounded to a type, ties to even; bfloat16 as its bits, uint16.

    Raises:
        KeyError: the type is none of F64, F32, F16 and BF16.

    """
    if dtype == "BF16":
        bits = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
        stored = np.empty(bits.shape, np.uint16)
        for start in range(0, bits.size, _AT_ONCE):
            some = bits[start : start + _AT_ONCE]
            rounded = some >> 16
            rounded &= 1
            rounded += 0x7FFF
            rounded += some
            rounded >>= 16
            stored[start : start + _AT_ONCE] = rounded
        return stored.reshape(values.shape)
    with np.errstate(over="ignore"):  # the caller looks for infinity
        return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype], copy=False)


@functools.cache
def _float8(dtype: str) -> F32:
    """All 256 values (Micikevicius et al. 2022, arXiv:2209.05433); E4M3 as torch's ``float8_e4m3fn``."""
    bits = np.arange(256)
    mantissa_bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    sign = np.where(bits & 0x80, -1.0, 1.0)
    exponent, mantissa = (bits & 0x7F) >> mantissa_bits, (bits & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    values = np.where(exponent, (1 + mantissa) * 2.0 ** (exponent - bias), mantissa * 2.0 ** (1 - bias))
    if dtype == "F8_E4M3":
        values[(bits & 0x7F) == 0x7F] = np.nan
    else:
        values[(bits & 0x7F) == 0x7C] = np.inf
        values[(bits & 0x7F) > 0x7C] = np.nan
    return (sign * values).astype(np.float32)
