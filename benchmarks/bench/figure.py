"""One measured figure: its samples and their percentiles, or the reason why there is none."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["QUANTILES", "Absent", "Figure", "figure_of"]

Unit = Literal["ms", "MB", "images/s"]

QUANTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0}

Samples = Annotated[list[float], msgspec.Meta(min_length=1)]


class Absent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="absent", tag_field="kind"):
    """There is no such figure, and why.

    Attributes:
        reason: what is missing, or what was chosen.

    """

    reason: Annotated[str, msgspec.Meta(min_length=1)]


class Figure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="figure", tag_field="kind"):
    """A figure as it was measured.

    Attributes:
        unit: ``ms``, ``MB`` (of 10^6 bytes) or ``images/s``.
        better: which way is an improvement.
        rounds: the samples of each fresh process, in the order in which they were taken.
        per_run: how many consecutive samples belong to one call of the pipeline.
        p50: median of all samples; percentiles between two samples are interpolated linearly.
        p90: 90th percentile.
        p99: 99th percentile.

    """

    unit: Unit
    better: Literal["lower", "higher"]
    rounds: Annotated[list[Samples], msgspec.Meta(min_length=1)]
    per_run: Annotated[int, msgspec.Meta(ge=1)] = 1
    p50: float
    p90: float
    p99: float

    @property
    def samples(self) -> NDArray[np.float64]:
        """All samples."""
        return np.concatenate([np.asarray(samples, np.float64) for samples in self.rounds])


def figure_of(
    unit: Unit, rounds: Sequence[Sequence[float]], *, better: Literal["lower", "higher"] = "lower", per_run: int = 1
) -> Figure:
    """Make a figure of its samples, one sequence per fresh process."""
    rounded = [[round(float(value), 4) for value in samples] for samples in rounds]
    p50, p90, p99 = (round(float(p), 4) for p in np.percentile(np.concatenate(rounded), list(QUANTILES.values())))
    return Figure(unit=unit, better=better, rounds=rounded, per_run=per_run, p50=p50, p90=p90, p99=p99)
