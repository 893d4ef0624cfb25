"""The numbers of an evaluation, of all samples, in one piece of memory, so that one copy moves them to a device."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...engines.memory import Buffer
from ...engines.spec import TensorSpec

__all__ = ["Field", "NumberLayout", "packed"]

F32 = NDArray[np.float32]
Field = tuple[str, str]
"""A component and one of its inputs."""

_ALIGNMENT = 64
"""Alignment of the fields, in numbers: 256 bytes, which TensorRT requires of every address."""


class NumberLayout:
    """The place of each number, for S samples on R rows.

    Args:
        fields: the inputs that are numbers, float32; each has no axes but S and R and fixed ones.
        samples: S.
        rows: R.

    Attributes:
        size: of the whole, in numbers.

    """

    def __init__(self, fields: Mapping[Field, TensorSpec], samples: int, rows: int) -> None:
        self._axes = {"S": samples, "R": rows}
        self._specs = dict(fields)
        self._starts: dict[Field, int] = {}
        self.size = 0
        for name, spec in fields.items():
            self._starts[name] = self.size
            length = math.prod(spec.resolve(self._axes))
            self.size += -(-length // _ALIGNMENT) * _ALIGNMENT

    def views(self, buffer: Buffer) -> dict[Field, Buffer]:
        """Return each field's part of a buffer ``[size or more]``."""
        views: dict[Field, Buffer] = {}
        for name, spec in self._specs.items():
            shape, start = spec.resolve(self._axes), self._starts[name]
            views[name] = buffer[start : start + math.prod(shape)].reshape(shape)
        return views

    def places(self, slot: int, rows: Sequence[int]) -> NDArray[np.intp]:
        """Return where the numbers of one sample go, in the order of :func:`packed`."""
        own = {"S": [slot], "R": list(rows)}
        places = []
        for name, spec in self._specs.items():
            shape = spec.resolve(self._axes)
            indices = [own[dim] if isinstance(dim, str) else range(dim) for dim in spec.shape]
            places.append(np.ravel_multi_index(np.ix_(*indices), shape).ravel() + self._starts[name])
        return np.concatenate(places)


def packed(fields: Iterable[Field], numbers: Mapping[str, Mapping[str, F32]], evaluations: int) -> F32:
    """Join a sample's numbers, each ``[N, ...]``, to one table ``[N, width]``."""
    parts = [numbers[component][name].reshape(evaluations, -1) for component, name in fields]
    return np.concatenate(parts, axis=1).astype(np.float32, copy=False)
