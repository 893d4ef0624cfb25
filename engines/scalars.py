"""Numbers as callers have them: Python's, numpy's and torch's, whole numbers also as floats (30.0)."""

import math
from typing import Any

from .errors import UsageError

__all__ = ["finite_number", "plain_numbers", "shortened", "whole_number"]


_FLOAT32_MOST = (2 - 2**-23) * 2.0**127


def plain_numbers(value: Any) -> Any:
    """Return a numpy or torch scalar as a number, an array of them as a list, anything else as it is."""
    return value.tolist() if hasattr(value, "dtype") and hasattr(value, "tolist") else value


def whole_number(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """Return a whole number.

    Raises:
        UsageError: it is none, is below ``least`` or above ``most``.

    """
    number = plain_numbers(value)
    whole = isinstance(number, int) or (isinstance(number, float) and number.is_integer())
    if isinstance(number, bool) or not whole or (least is not None and number < least):
        raise UsageError(
            f"{name}={shortened(value)} must be a whole number" + ("" if least is None else f", {least} or more")
        )
    if most is not None and number > most:
        raise UsageError(f"{name}={shortened(value)} is too large; {most} is the most")
    return int(number)


def finite_number(name: str, value: Any) -> float:
    """Return a finite number.

    Raises:
        UsageError: it is none, or is infinite in float32, which engines compute in.

    """
    number = plain_numbers(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not _finite(number):
        raise UsageError(f"{name}={shortened(value)} must be a finite number")
    if abs(number) > _FLOAT32_MOST:
        raise UsageError(f"{name}={shortened(value)} is too large; {_FLOAT32_MOST:.3g} is the most")
    return float(number)


def shortened(value: object) -> str:
    """Return a value as a message shows it: what was given may be an array, or have a thousand digits."""
    try:
        text = repr(value)
    except Exception:  # more digits than Python writes, or any object
        return "a number of thousands of digits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= 100 else text[:100] + "..."


def _finite(number: int | float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond what a float can be
        return False
