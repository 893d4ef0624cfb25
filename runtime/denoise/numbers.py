"""Where each sample's numbers of an evaluation are in one buffer for all samples, which one copy moves to a device."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ...engines.memory import Buffer
from ...engines.spec import TensorSpec

__all__ = ["InputName", "NumberLayout", "packed"]

F32 = NDArray[np.float32]
InputName = tuple[str, str]
"""Name of a component, and name of one of its inputs."""

_ALIGNMENT = 64
"""Alignment of each input in the buffer, in float32 numbers: 256 bytes, which TensorRT requires of every address."""


class NumberLayout:
    """The inputs that are numbers, one after the other in one buffer, for S samples on R rows.

    Args:
        specs: the inputs, float32; their axes are S, R and axes of fixed size.
        samples: S.
        rows: R.

    Attributes:
        size: of the buffer, in numbers.

    """

    def __init__(self, specs: Mapping[InputName, TensorSpec], samples: int, rows: int) -> None:
        self._axes = {"S": samples, "R": rows}
        self._specs = dict(specs)
        self._starts: dict[InputName, int] = {}
        self.size = 0
        for name, spec in specs.items():
            self._starts[name] = self.size
            length = math.prod(spec.resolve(self._axes))
            self.size += -(-length // _ALIGNMENT) * _ALIGNMENT

    def views(self, buffer: Buffer) -> dict[InputName, Buffer]:
        """Return each input, in its own shape, as a part of a buffer ``[size or more]``."""
        views: dict[InputName, Buffer] = {}
        for name, spec in self._specs.items():
            shape, start = spec.resolve(self._axes), self._starts[name]
            views[name] = buffer[start : start + math.prod(shape)].reshape(shape)
        return views

    def places(self, slot: int, rows: Sequence[int]) -> NDArray[np.intp]:
        """Return the indices in the buffer of one sample's numbers, int ``[width]``, in the order of :func:`packed`."""
        used = {"S": [slot], "R": list(rows)}
        places = []
        for name, spec in self._specs.items():
            shape = spec.resolve(self._axes)
            indices = [used[dim] if isinstance(dim, str) else range(dim) for dim in spec.shape]
            places.append(np.ravel_multi_index(np.ix_(*indices), shape).ravel() + self._starts[name])
        return np.concatenate(places)


def packed(inputs: Iterable[InputName], numbers: Mapping[str, Mapping[str, F32]], evaluations: int) -> F32:
    """Join a sample's numbers, ``[N, ...]`` for each input, to one table ``[N, width]``: a row for each evaluation."""
    parts = [numbers[component][name].reshape(evaluations, -1) for component, name in inputs]
    return np.concatenate(parts, axis=1).astype(np.float32, copy=False)
