"""What turns cost, measured while a worker runs."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from statistics import median
from typing import TypeVar

from .policy import Bucket

__all__ = ["Costs"]

_T = TypeVar("_T")

_MOST_BUCKETS = 1000
_REMEMBERED = 5
"""Measurements of which the median counts: a first run that compiles something is soon outvoted."""
_GROWTH = 0.8
"""A step is taken to cost ``rows ** 0.8`` until it has been measured: optimistic, so that larger ones are tried."""
_UNKNOWN_STEP_S = 0.1
_UNKNOWN_DECODE_STEPS = 2.0
_UNKNOWN_PREPARE_S = 0.02
_UNKNOWN_SWITCH_S = 1.0


class Costs:
    """Seconds of steps, by bucket and rows, and of decoding and preparing, by bucket; see :class:`.CostTable`.

    What has not been measured is estimated from the nearest that has: other numbers of rows of the same bucket, then
    other sizes of the same model, in proportion to their pixels.
    """

    def __init__(self) -> None:
        self._steps: dict[Bucket, dict[int, _Times]] = {}
        self._switches: dict[str, _Times] = {}
        self._loaded: dict[str, str] = {}
        self._stages: dict[str, dict[Bucket, _Times]] = {"decode": {}, "prepare": {}}

    def note_step(self, bucket: Bucket, rows: int, seconds: float) -> None:
        """Remember what a step took."""
        _known(self._steps, bucket, dict).setdefault(rows, _Times()).add(seconds)

    def note(self, stage: str, bucket: Bucket, seconds: float) -> None:
        """Remember what ``decode`` or ``prepare`` took."""
        _known(self._stages[stage], bucket, _Times).add(seconds)

    def note_loras(self, model: str, loras: str, seconds: float | None = None) -> None:
        """Remember which LoRAs are over a model's weights, and what it took to bring them there."""
        self._loaded[model] = loras
        if seconds is not None:
            self._switches.setdefault(model, _Times()).add(seconds)

    def step(self, bucket: Bucket, rows: int) -> float:
        """See :class:`.CostTable`."""
        bucket = _without_loras(bucket)
        by_rows = self._steps.get(bucket)
        if by_rows:
            return _at(by_rows, rows)
        other = _nearest(bucket, self._steps)
        if other is None:
            return float(_UNKNOWN_STEP_S * rows**_GROWTH)
        return _at(self._steps[other], rows) * _pixels(bucket) / _pixels(other)

    def decode(self, bucket: Bucket) -> float:
        """See :class:`.CostTable`."""
        return self._stage("decode", bucket, _UNKNOWN_DECODE_STEPS * self.step(bucket, 1))

    def prepare(self, bucket: Bucket) -> float:
        """See :class:`.CostTable`."""
        return self._stage("prepare", bucket, _UNKNOWN_PREPARE_S)

    def switch(self, bucket: Bucket) -> float:
        """See :class:`.CostTable`."""
        if self._loaded.get(bucket.model, "") == bucket.loras:
            return 0.0
        times = self._switches.get(bucket.model)
        return _UNKNOWN_SWITCH_S if times is None else times.middle

    def _stage(self, stage: str, bucket: Bucket, otherwise: float) -> float:
        times, bucket = self._stages[stage], _without_loras(bucket)
        if bucket in times:
            return times[bucket].middle
        other = _nearest(bucket, times)
        return otherwise if other is None else times[other].middle * _pixels(bucket) / _pixels(other)

    def table(self) -> dict[str, dict[str, object]]:
        """Return what was measured, as JSON values, by model and size; seconds."""
        return {
            " ".join((bucket.model, bucket.stage or f"{bucket.width}x{bucket.height}", *bucket.more)): {
                "step": {str(rows): times.middle for rows, times in sorted(by_rows.items())},
                **({} if bucket.stage else {"decode": self.decode(bucket), "prepare": self.prepare(bucket)}),
            }
            for bucket, by_rows in sorted(self._steps.items())
        }


class _Times:
    """The last few measurements of one thing."""

    __slots__ = ("_last", "middle")

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_REMEMBERED)
        self.middle = 0.0

    def add(self, seconds: float) -> None:
        self._last.append(seconds)
        # Of two, the first may have been the warm-up.
        self.middle = min(self._last) if len(self._last) < 3 else median(self._last)


def _at(by_rows: dict[int, _Times], rows: int) -> float:
    """Return what so many rows take: as measured, between two that were, or beyond them."""
    if rows in by_rows:
        return by_rows[rows].middle
    below = max((n for n in by_rows if n < rows), default=None)
    above = min((n for n in by_rows if n > rows), default=None)
    if below is not None and above is not None:
        share = (rows - below) / (above - below)
        return by_rows[below].middle * (1 - share) + by_rows[above].middle * share
    nearest = below if below is not None else above
    assert nearest is not None
    return by_rows[nearest].middle * float((rows / nearest) ** _GROWTH)


def _known(table: dict[Bucket, _T], bucket: Bucket, make: Callable[[], _T]) -> _T:
    """Return a bucket's entry, made where there is none; of many, the oldest is forgotten."""
    bucket = _without_loras(bucket)
    if bucket not in table:
        if len(table) >= _MOST_BUCKETS:
            del table[next(iter(table))]
        table[bucket] = make()
    return table[bucket]


def _without_loras(bucket: Bucket) -> Bucket:
    """Return a bucket as its costs are known: other weights take as long."""
    return replace(bucket, loras="") if bucket.loras else bucket


def _pixels(bucket: Bucket) -> int:
    return bucket.height * bucket.width


def _nearest(bucket: Bucket, buckets: Iterable[Bucket]) -> Bucket | None:
    """Return the bucket of the same model and stage whose size is nearest."""
    same = [other for other in buckets if (other.model, other.stage) == (bucket.model, bucket.stage)]
    return min(same, key=lambda other: abs(_pixels(other) - _pixels(bucket)), default=None)
