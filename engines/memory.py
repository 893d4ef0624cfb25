"""The memory that an engine's buffers are in: the host's, or a GPU's.

The denoising loop works on buffers in an engine's memory. On the host these are numpy arrays, and every call is done
when it returns. On a GPU, copies are queued in its stream, in order with the engines' runs; the host waits only where
it reads a result.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["HOST", "Buffer", "Event", "HostMemory", "Memory", "host_arrays"]

Event = Any
"""A point in the sequence of queued work, made by :meth:`Memory.event`."""


class Buffer(Protocol):
    """A C-contiguous array, in some memory; numpy arrays are buffers of the host."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its elements."""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""

    def __getitem__(self, index: Any, /) -> Any:
        """Return a part along the first axis, by an index or a slice: a buffer on the same bytes."""

    def reshape(self, shape: Any, /) -> Any:
        """Return the same bytes under another shape."""


class Memory(Protocol):
    """Makes buffers and copies between them. Calls take effect in order, but not necessarily before they return."""

    def zeros(self, shape: Sequence[int], dtype: Any) -> Buffer:
        """Make a buffer of zeros."""

    def clear(self, buffer: Buffer) -> None:
        """Fill a buffer with zeros."""

    def copy(self, target: Buffer, source: Buffer) -> None:
        """Copy ``source``, of the same shape and type, in this memory or on the host, to ``target``."""

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """Wait for a buffer's contents and return them on the host; a buffer of the host is not copied."""

    def event(self) -> Event:
        """Return an event after all work that is queued so far."""

    def wait(self, event: Event) -> None:
        """Wait until all work before an event is done."""

    def milliseconds(self, start: Event, end: Event) -> float:
        """Return the time between two events that have both been waited for."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return a function that repeats the work with as few launches as this memory can: on a GPU, as a CUDA graph.

        The work runs engines and copies between the same buffers at each call, and reads nothing.
        """


class HostMemory:
    """Memory of numpy arrays; every call is done when it returns. See :class:`Memory`."""

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

    def event(self) -> Event:
        """See :class:`Memory`."""
        return time.perf_counter()

    def wait(self, event: Event) -> None:
        """See :class:`Memory`."""

    def milliseconds(self, start: Event, end: Event) -> float:
        """See :class:`Memory`."""
        return float(end - start) * 1e3

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See :class:`Memory`."""
        return work


HOST = HostMemory()
"""The host's memory."""


def _array(buffer: Buffer) -> NDArray[Any]:
    assert isinstance(buffer, np.ndarray)
    return buffer


def host_arrays(buffers: Mapping[str, Buffer]) -> dict[str, NDArray[Any]]:
    """Return buffers of the host as numpy arrays."""
    return {name: _array(buffer) for name, buffer in buffers.items()}
