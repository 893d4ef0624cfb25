"""Pinned memory of the host: a GPU copies from and to it while the host goes on."""

import ctypes
from collections import deque
from collections.abc import Callable
from typing import Any

from .driver import cuda, driver_call

__all__ = ["PinnedBuffer", "Staging"]

_MOST_UNDERWAY = 8
_MOST_IDLE = 64 << 20
"""Most idle bytes that are held for reuse."""
_LEAST = 4096
"""Smallest buffer, in bytes; sizes are rounded up to powers of two, so that buffers can be reused."""


class PinnedBuffer:
    """Bytes of the host that the device copies from and to without another copy."""

    def __init__(self, size: int) -> None:
        self.size = max(_LEAST, 1 << (max(size, 1) - 1).bit_length())
        self.address = int(driver_call("cuMemHostAlloc", self.size, 0))
        self.read_by_device = driver_call("cuEventCreate", cuda().CUevent_flags.CU_EVENT_DISABLE_TIMING)

    def free(self) -> None:
        """Give it back."""
        driver_call("cuEventDestroy", self.read_by_device)
        driver_call("cuMemFreeHost", self.address)


class Staging:
    """A stream's pinned buffers, held for reuse.

    Args:
        stream: that copies are put into.

    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._idle: list[PinnedBuffer] = []
        self._underway: deque[PinnedBuffer] = deque()

    def send(self, target: int, source: int, size: int) -> None:
        """Copy bytes of the host to the device; the source may be changed as soon as this returns."""
        buffer = self.take(size)
        ctypes.memmove(buffer.address, source, size)
        driver_call("cuMemcpyHtoDAsync", target, buffer.address, size, self._stream)
        driver_call("cuEventRecord", buffer.read_by_device, self._stream)
        self._underway.append(buffer)

    def receive(self, target: int, source: int, size: int, synchronize: Callable[[], None]) -> None:
        """Copy bytes of the device to the host, and wait for them."""
        buffer = self.take(size)
        driver_call("cuMemcpyDtoHAsync", buffer.address, source, size, self._stream)
        synchronize()
        ctypes.memmove(target, buffer.address, size)
        self.give_back(buffer)

    def take(self, size: int) -> PinnedBuffer:
        """Return an unused buffer; where many copies are under way, wait for the first of them."""
        if len(self._underway) >= _MOST_UNDERWAY:
            arrived = self._underway.popleft()
            driver_call("cuEventSynchronize", arrived.read_by_device)
            self._idle.append(arrived)
        # A copy of the list: buffers may be given back meanwhile, by finalizers in other threads.
        fitting = min((b for b in list(self._idle) if b.size >= size), key=lambda b: b.size, default=None)
        if fitting is not None:
            self._idle.remove(fitting)
            return fitting
        while self._idle and sum(b.size for b in list(self._idle)) > _MOST_IDLE:
            self._idle.pop(0).free()
        return PinnedBuffer(size)

    def give_back(self, buffer: PinnedBuffer) -> None:
        """Hold a buffer that the device does not use any more. Called from finalizers: it never calls the driver."""
        self._idle.append(buffer)

    def all_arrived(self) -> None:
        """Note that the stream has done all its work: no copy is under way."""
        self._idle += self._underway
        self._underway.clear()

    def close(self) -> None:
        """Free everything; the stream has done all its work."""
        self.all_arrived()
        while self._idle:
            self._idle.pop().free()
