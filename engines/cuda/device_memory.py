"""A GPU's memory as the loop sees it: buffers, copies in the stream's order, and captured work."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError
from ..memory import Buffer, Event
from .blocks import MemoryBlock
from .driver import cuda, driver_call
from .graph import CudaGraph, captured_graph

if TYPE_CHECKING:
    from .device import Device

__all__ = ["DeviceArray", "DeviceMemory", "host_buffers"]


class DeviceArray:
    """An array on the device; see :class:`~sdengine.engines.memory.Buffer`."""

    def __init__(self, block: MemoryBlock, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._block = block
        self.address = address
        self.shape = shape
        self.dtype = dtype
        self.nbytes = math.prod(shape) * dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """How other libraries see these bytes: numba's protocol, version 3. They must use the device's own stream."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None,
            "version": 3,
        }

    def __getitem__(self, index: int | slice) -> "DeviceArray":
        """Return a part along the first axis, on the same bytes."""
        row = self.nbytes // max(self.shape[0], 1)
        if isinstance(index, slice):
            start, stop, step = index.indices(self.shape[0])
            if step != 1:
                raise IndexError("parts of an array on a device are contiguous")
            shape = (max(stop - start, 0), *self.shape[1:])
        else:
            start = range(self.shape[0])[index]
            shape = self.shape[1:]
        return DeviceArray(self._block, self.address + start * row, shape, self.dtype)

    def reshape(self, shape: Sequence[int]) -> "DeviceArray":
        """Return the same bytes under another shape."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{list(self.shape)} cannot be seen as {list(shape)}")
        return DeviceArray(self._block, self.address, tuple(shape), self.dtype)


class DeviceMemory:
    """See :class:`~sdengine.engines.memory.Memory`.

    Args:
        device: whose memory it is.

    """

    def __init__(self, device: "Device") -> None:
        self._device = device

    def zeros(self, shape: Sequence[int], dtype: Any) -> DeviceArray:
        """See :class:`~sdengine.engines.memory.Memory`."""
        kind = np.dtype(dtype)
        with self._device.held():
            block = self._device.blocks.block(math.prod(shape) * kind.itemsize)
        array = DeviceArray(block, block.address, tuple(shape), kind)
        self.clear(array)
        return array

    def place_for(self, buffer: Buffer) -> DeviceArray:
        """Return the buffer, or a place on the device for one that is on the host."""
        return buffer if isinstance(buffer, DeviceArray) else self.zeros(buffer.shape, buffer.dtype)

    def clear(self, buffer: Buffer) -> None:
        """See :class:`~sdengine.engines.memory.Memory`."""
        if buffer.nbytes:
            with self._device.held():
                driver_call("cuMemsetD8Async", _address(buffer), 0, buffer.nbytes, self._device.stream)

    def copy(self, target: Buffer, source: Buffer) -> None:
        """See :class:`~sdengine.engines.memory.Memory`."""
        if target.shape != source.shape or target.dtype != source.dtype:
            raise ValueError(f"{source.dtype} {source.shape} cannot be copied to {target.dtype} {target.shape}")
        if not target.nbytes:
            return
        with self._device.held():
            if isinstance(source, np.ndarray):
                values = np.ascontiguousarray(source)
                self._device.staging.send(_address(target), values.ctypes.data, values.nbytes)
            else:
                driver_call("cuMemcpyDtoDAsync", _address(target), _address(source), target.nbytes, self._device.stream)

    def read(self, buffer: Buffer) -> NDArray[Any]:
        """See :class:`~sdengine.engines.memory.Memory`."""
        array = np.empty(buffer.shape, buffer.dtype)
        device = self._device
        with device.held():
            device.staging.receive(array.ctypes.data, _address(buffer), buffer.nbytes, device.synchronize)
        return array

    def event(self) -> Event:
        """See :class:`~sdengine.engines.memory.Memory`."""
        with self._device.held():
            return _Event(self._device.stream)

    def wait(self, event: Event) -> None:
        """See :class:`~sdengine.engines.memory.Memory`."""
        self._device.make_current()  # not held: other threads may add work meanwhile
        driver_call("cuEventSynchronize", event.event)

    def milliseconds(self, start: Event, end: Event) -> float:
        """See :class:`~sdengine.engines.memory.Memory`."""
        return float(driver_call("cuEventElapsedTime", start.event, end.event))

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See :class:`~sdengine.engines.memory.Memory`. The first call runs the work, the second one captures it."""
        return _Capture(self._device, work)


class _Event:
    """A point in the stream's order; destroyed with the last reference."""

    def __init__(self, stream: Any) -> None:
        self.event = driver_call("cuEventCreate", cuda().CUevent_flags.CU_EVENT_DEFAULT)
        driver_call("cuEventRecord", self.event, stream)

    def __del__(self) -> None:
        with contextlib.suppress(EngineError):  # the context is gone, and the event with it
            driver_call("cuEventDestroy", self.event)


class _Capture:
    """Work that becomes one CUDA graph."""

    def __init__(self, device: "Device", work: Callable[[], None]) -> None:
        self._device = device
        self._work = work
        self._ran = False
        self._generation = -1
        self._graph: CudaGraph | None = None
        self._used: list[Any] = []

    def __call__(self) -> None:
        device = self._device
        with device.held():
            if self._generation != device.generation:
                self._graph, self._ran = None, False
            if self._graph is None and self._ran:
                self._graph = self._capture()
            if self._graph is not None:
                self._graph.launch(device.stream)
                return
            self._work()
            # Not recorded at the first run: until then the libraries may still allocate and load.
            self._ran, self._generation = True, device.generation

    def _capture(self) -> CudaGraph:
        device = self._device
        device.capturing = []
        try:
            graph = captured_graph(device.stream, self._work)
            self._used = device.capturing
        finally:
            device.capturing = None
        return graph


def host_buffers(buffers: Mapping[str, Buffer]) -> dict[str, NDArray[Any]]:
    """Return those that are on the host."""
    return {name: buffer for name, buffer in buffers.items() if isinstance(buffer, np.ndarray)}


def _address(buffer: Buffer) -> int:
    assert isinstance(buffer, DeviceArray)
    return buffer.address
