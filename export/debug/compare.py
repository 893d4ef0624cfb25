"""Runs two runners on the same inputs and compares their values, with Polygraphy's comparator."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from polygraphy.backend.base import BaseRunner
from polygraphy.comparator import Comparator, SimpleCompareFunc
from polygraphy.exception import PolygraphyException
from polygraphy.logger import G_LOGGER

from ...engines.engine import Array
from ...engines.errors import EngineError

__all__ = ["LayerComparison", "compare"]

_LEAST_SCALE = 1e-6
"""Smallest scale of an error: a layer of smaller values is judged by this one."""


@dataclass(frozen=True, kw_only=True)
class LayerComparison:
    """How far a value is from the reference.

    Attributes:
        error: largest difference over the largest value of the reference; None where that is not a number, or the
            shapes differ.
        allowed: the largest difference that is within tolerance.
        expected: the reference's value.
        actual: the engine's value.

    """

    error: float | None
    allowed: float
    expected: Array
    actual: Array

    def within(self, tolerance: float) -> bool:
        """Whether it is within tolerance."""
        return self.error is not None and self.error <= tolerance


def compare(
    reference: BaseRunner,
    engine: BaseRunner,
    inputs: Mapping[str, Array],
    tolerance: float,
    *,
    rounded: Collection[str] = (),
    confirm: int = 5,
) -> dict[str, LayerComparison]:
    """Compare every value that both compute.

    Polygraphy's statistics of a value, with its medians and quantiles, take some 40 times as long as the largest
    difference. So that is what all values are judged by, and Polygraphy's comparison has the last word about the first
    that are over tolerance.

    Args:
        reference: computes the expected values.
        engine: computes the values to check.
        inputs: by name, of the engine's types.
        tolerance: the largest difference over the largest value of the reference.
        rounded: values in whole numbers: one on the edge between two may become either, so a difference of 1 is
            allowed.
        confirm: how many values over tolerance to hand to Polygraphy's comparison.

    Raises:
        EngineError: one of them cannot run.

    """
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL + 1), np.errstate(all="ignore"):
        try:
            results = Comparator.run([reference, engine], data_loader=[dict(inputs)])
            expected, actual = (dict(comparisons[1][0].items()) for comparisons in results)
            comparisons = {
                name: _difference(array, actual[name], tolerance, rounded=name in rounded)
                for name, array in expected.items()
                if name in actual and array.size and array.dtype.kind in "fiu"
            }
            over = [name for name, difference in comparisons.items() if not difference.within(tolerance)][:confirm]
            comparisons |= _confirmed(results, {name: comparisons[name] for name in over}, tolerance)
        except PolygraphyException as error:
            raise EngineError(f"polygraphy: {error}") from error
    return comparisons


def _difference(expected: Array, actual: Array, tolerance: float, *, rounded: bool) -> LayerComparison:
    if expected.dtype.kind == "f":
        finite = np.abs(expected[np.isfinite(expected)])
        allowed = tolerance * max(float(finite.max(initial=0.0)), _LEAST_SCALE) + rounded
    else:
        allowed = 1.0 if expected.dtype == np.uint8 else 0.5
    largest = math.inf
    if expected.shape == actual.shape:
        difference = np.subtract(expected, actual, dtype=np.float32 if expected.dtype.kind == "f" else np.float64)
        difference[expected == actual] = 0.0  # infinity is infinity
        largest = float(np.abs(difference, out=difference).max())
    return LayerComparison(error=_error(largest, allowed, tolerance), allowed=allowed, expected=expected, actual=actual)


def _error(largest: float, allowed: float, tolerance: float) -> float | None:
    """Return a difference in units in which ``tolerance`` is what is allowed."""
    return largest * tolerance / allowed if math.isfinite(largest) else None


def _confirmed(results: Any, over: Mapping[str, LayerComparison], tolerance: float) -> dict[str, LayerComparison]:
    """Compare some values with Polygraphy."""
    if not over:
        return {}
    function = SimpleCompareFunc(
        atol={name: difference.allowed for name, difference in over.items()},
        rtol=0.0,
        check_error_stat="max",
        infinities_compare_equal=True,
        find_output_func=lambda name, _index, _result: [name] if name in over else [],
    )
    [accuracy] = Comparator.compare_accuracy(results, compare_func=function)
    [matches] = next(iter(accuracy.values()))
    largest = {
        name: math.inf if isinstance(match, bool) else float(match.max_absdiff) for name, match in matches.items()
    }
    return {
        name: replace(difference, error=_error(largest[name], difference.allowed, tolerance))
        for name, difference in over.items()
    }
