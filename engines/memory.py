"""Where an engine's buffers lie: the host's memory, or a GPU's.

The loop over the steps asks an engine for its memory and works on buffers in it. On the host those are numpy arrays and
everything happens at once; on a GPU copies are only put into its stream, in order with the engines' runs, and nothing
waits before somebody reads.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["HOST", "Buffer", "HostMemory", "Mark", "Memory", "host_arrays"]

Mark = Any
"""A point in the order of the work, made by :meth:`Memory.mark`."""


class Buffer(Protocol):
    """A C-contiguous array, in some memory; numpy arrays are buffers of the host."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return a part along the first axis, an index or a slice: a buffer on the same bytes."""

    def reshape(self, shape: Any, /) -> Any:
        """Return the same bytes under another shape."""


class Memory(Protocol):
    """Makes buffers and copies between them. Calls take effect in order, not necessarily at once."""

    def zeros(self, shape: Sequence[int], dtype: Any) -> Buffer:
        """Make a buffer of zeros."""

    def clear(self, buffer: Buffer) -> None:
        """Fill a buffer with zeros."""

    def copy(self, target: Buffer, source: Buffer) -> None:
        """Copy; ``source`` has the same shape and type, and lies in this memory or on the host."""

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """Wait for a buffer's contents and return them on the host, where it lies there already without a copy."""

    def mark(self) -> Mark:
        """Mark the work that has been given so far."""

    def wait(self, mark: Mark) -> None:
        """Wait until the work before a mark has been done."""

    def milliseconds(self, start: Mark, end: Mark) -> float:
        """Return the time between two marks that have both been waited for."""

    def repeated(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return what does the same work as often as it is called, with as few launches as this memory can.

        The work runs engines and copies between buffers that are the same at each call, and reads nothing.
        """


class HostMemory:
    """numpy arrays; see :class:`Memory`. Everything is done when the call returns."""

    def zeros(self, shape: Sequence[int], dtype: Any) -> NDArray[Any]:
        """See :class:`Memory`."""
        return np.zeros(shape, dtype)

    def clear(self, buffer: Buffer) -> None:
        """See :class:`Memory`."""
        _array(buffer).fill(0)

    def copy(self, target: Buffer, source: Buffer) -> None:
        """See :class:`Memory`."""
        target[...] = source  # type: ignore[index]

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """See :class:`Memory`."""
        return _array(buffer)

    def mark(self) -> Mark:
        """See :class:`Memory`."""
        return time.perf_counter()

    def wait(self, mark: Mark) -> None:
        """See :class:`Memory`."""

    def milliseconds(self, start: Mark, end: Mark) -> float:
        """See :class:`Memory`."""
        return float(end - start) * 1e3

    def repeated(self, work: Callable[[], None]) -> Callable[[], None]:
        """See :class:`Memory`."""
        return work


HOST = HostMemory()
"""The host's memory; there is one."""


def _array(buffer: Buffer) -> NDArray[Any]:
    assert isinstance(buffer, np.ndarray)
    return buffer


def host_arrays(buffers: Mapping[str, Buffer]) -> dict[str, NDArray[Any]]:
    """Return buffers as what they must be for an engine of the host: numpy arrays."""
    return {name: _array(buffer) for name, buffer in buffers.items()}
