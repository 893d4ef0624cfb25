"""Finds the arguments whose numbers are the likely cause, when a network has produced NaN or infinity."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from ...engines.scalars import shortened
from .argument import SEEDS, argument_of
from .arrays import array_from
from .request import Request

__all__ = ["large_numbers"]

_LARGE = 1e7
"""No argument that makes an image is as large; sizes in pixels are below it."""


def large_numbers(request: Request) -> list[str]:
    """Return a text for each argument of a request that holds a number beyond 1e7 (or below -1e7): its name and value.

    Such numbers are valid, but sums of their products or squares may be infinite in what an engine computes in.
    """
    values = {f.name: getattr(request, f.name) for f in fields(Request) if argument_of(f).kind is not SEEDS}
    return [
        f"{name}={value!r}" if isinstance(value, float) else f"{name}, which holds {shortened(largest)}"
        for name, value in values.items()
        if (largest := _largest(value)) > _LARGE
    ]


def _largest(value: Any) -> float:
    """Return the largest magnitude of the numbers in a value; 0 if it holds none."""
    if isinstance(value, Mapping):
        return _largest(list(value.values()))
    if isinstance(value, (list, tuple)):
        return max(map(_largest, value), default=0.0)
    if isinstance(value, (int, float)) or hasattr(value, "dtype"):
        numbers = array_from(value)
        return float(np.abs(numbers.astype(np.float64)).max()) if numbers.dtype.kind in "fiu" and numbers.size else 0.0
    return 0.0
