"""A GPU as the engines of a process share it: its primary context, one stream, one scratch area."""

import threading

from ..errors import EngineError
from .driver import cuda, driver_call
from .gpu import gpu_here

__all__ = ["Device", "DeviceBuffer", "PinnedBuffer", "device_of"]

_ALIGNMENT = 256
"""Bytes that scratch memory must be aligned to (IExecutionContext::setDeviceMemory); cuMemAlloc aligns to as much."""


class DeviceBuffer:
    """Bytes on the device. A length of zero still has an address, as every tensor needs one."""

    def __init__(self, size: int) -> None:
        self.size = max(size, 1)
        self.address = int(driver_call("cuMemAlloc", self.size))

    def free(self) -> None:
        """Give it back; calling it twice is harmless."""
        address, self.address = self.address, 0
        if address:
            driver_call("cuMemFree", address)


class PinnedBuffer:
    """Bytes of the host that the device copies from and to without a detour."""

    def __init__(self, size: int) -> None:
        self.size = max(size, 1)
        self.address = int(driver_call("cuMemHostAlloc", self.size, 0))

    def free(self) -> None:
        """Give it back; calling it twice is harmless."""
        address, self.address = self.address, 0
        if address:
            driver_call("cuMemFreeHost", address)


class Device:
    """A GPU; get it with :func:`device_of`, and :meth:`release` it.

    Attributes:
        gpu: which one it is.
        stream: the one stream that everything runs on, in order; not the default stream, which would wait for others.
        lock: held while the stream is used, so that scratch memory has one user at a time.
        scratch_generation: changes when the scratch area moves; what remembers its address must then be made anew.

    """

    def __init__(self, index: int) -> None:
        gpu = gpu_here(index)
        if gpu is None:
            raise EngineError(f"there is no GPU {index} here; `sdengine doctor` tells what is missing")
        self.gpu = gpu
        self.index = index
        self.lock = threading.RLock()
        self.users = 0
        self.scratch_generation = 0
        self._scratch: DeviceBuffer | None = None
        self._device = driver_call("cuDeviceGet", index)
        self._context = driver_call("cuDevicePrimaryCtxRetain", self._device)
        try:
            self.make_current()
            self.stream = driver_call("cuStreamCreate", cuda().CUstream_flags.CU_STREAM_NON_BLOCKING)
        except BaseException:
            driver_call("cuDevicePrimaryCtxRelease", self._device)
            raise

    def make_current(self) -> None:
        """Make this GPU the calling thread's; needed once in each thread, and cheap."""
        driver_call("cuCtxSetCurrent", self._context)

    def scratch(self, size: int) -> tuple[int, int]:
        """Return address and size of the scratch area, after growing it to ``size`` bytes where it is smaller."""
        if self._scratch is None or self._scratch.size < size:
            self.synchronize()
            if self._scratch is not None:
                self._scratch.free()
            self._scratch = None
            self._scratch = DeviceBuffer(-(-size // _ALIGNMENT) * _ALIGNMENT)
            self.scratch_generation += 1
        return self._scratch.address, self._scratch.size

    def synchronize(self) -> None:
        """Wait until the stream has done all its work."""
        driver_call("cuStreamSynchronize", self.stream)

    def release(self) -> None:
        """Tell that one user less needs it; the last one frees it."""
        with _LOCK:
            self.users -= 1
            if self.users > 0:
                return
            _DEVICES.pop(self.index, None)
            self.make_current()
            if self._scratch is not None:
                self._scratch.free()
            driver_call("cuStreamDestroy", self.stream)
            driver_call("cuDevicePrimaryCtxRelease", self._device)


_DEVICES: dict[int, Device] = {}
_LOCK = threading.Lock()


def device_of(index: int) -> Device:
    """Return the GPU of that number, opened by the first who asks; each user must release it once.

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
