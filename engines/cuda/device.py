"""A GPU as the engines of a process share it: its primary context, one stream, one scratch area, its memory."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from ..errors import EngineError
from .blocks import Blocks
from .device_memory import DeviceMemory
from .driver import cuda, driver_call
from .gpu import gpu_here
from .staging import Staging

__all__ = ["Device", "device_of"]

_ALIGNMENT = 256
"""Bytes that scratch memory must be aligned to (IExecutionContext::setDeviceMemory); cuMemAlloc aligns to as much."""


class Device:
    """A GPU; get it with :func:`device_of`, and :meth:`release` it.

    Attributes:
        gpu: which one it is.
        stream: the one stream that everything runs on, in order; not the default stream, which would wait for others.
        lock: held while the stream is used, so that scratch memory has one user at a time.
        memory: its memory, as the loop sees it.
        blocks: allocates its memory.
        staging: pinned memory of the host for what goes to the device.
        generation: changes when captured launches no longer hold: the scratch area has moved, or weights were replaced.
        capturing: what the work that is being captured uses, which the graph must keep alive; None outside a capture.

    """

    def __init__(self, index: int) -> None:
        gpu = gpu_here(index)
        if gpu is None:
            raise EngineError(f"there is no GPU {index} here; `sdengine doctor` tells what is missing")
        self.gpu = gpu
        self.index = index
        self.lock = threading.RLock()
        self.users = 0
        self.generation = 0
        self.capturing: list[Any] | None = None
        self.blocks = Blocks()
        self.memory = DeviceMemory(self)
        self._scratch: tuple[int, int] | None = None
        self._device = driver_call("cuDeviceGet", index)
        self._context = driver_call("cuDevicePrimaryCtxRetain", self._device)
        try:
            self.make_current()
            self.stream = driver_call("cuStreamCreate", cuda().CUstream_flags.CU_STREAM_NON_BLOCKING)
        except BaseException:
            driver_call("cuDevicePrimaryCtxRelease", self._device)
            raise
        self.staging = Staging(self.stream)

    def make_current(self) -> None:
        """Make this GPU the calling thread's; needed once in each thread, and cheap."""
        driver_call("cuCtxSetCurrent", self._context)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the stream, with this GPU as the calling thread's."""
        with self.lock:
            self.make_current()
            yield

    def scratch(self, size: int) -> tuple[int, int]:
        """Return address and size of the scratch area, after growing it to ``size`` bytes where it is smaller."""
        if self._scratch is None or self._scratch[1] < size:
            self.synchronize()
            if self._scratch is not None:
                self.blocks.free(self._scratch[0])
            self._scratch = None
            rounded = -(-size // _ALIGNMENT) * _ALIGNMENT
            self._scratch = self.blocks.allocate(rounded), rounded
            self.generation += 1
        return self._scratch

    def synchronize(self) -> None:
        """Wait until the stream has done all its work."""
        driver_call("cuStreamSynchronize", self.stream)
        self.staging.all_arrived()

    def release(self) -> None:
        """Give up one use; the last user frees the device."""
        with _LOCK:
            self.users -= 1
            if self.users > 0:
                return
            _DEVICES.pop(self.index, None)
            self.make_current()
            self.synchronize()
            self.staging.close()
            self.blocks.close()
            driver_call("cuStreamDestroy", self.stream)
            driver_call("cuDevicePrimaryCtxRelease", self._device)


_DEVICES: dict[int, Device] = {}
_LOCK = threading.Lock()


def device_of(index: int) -> Device:
    """Return the GPU of that number, opened at the first call; each user must release it once.

    Raises:
        EngineUnavailableError: there is no driver.
        EngineError: there is no such GPU, or the driver fails.

    """
    with _LOCK:
        device = _DEVICES.get(index)
        if device is None:
            device = _DEVICES[index] = Device(index)
        device.users += 1
    return device
