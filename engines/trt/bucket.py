"""An execution context for one set of shapes, with its buffers and, once it has run, a captured graph."""

import ctypes
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..engine import Array
from ..errors import EngineError
from ..spec import ComponentSpec, TensorSpec
from .device import Device, DeviceBuffer, PinnedBuffer
from .driver import cuda, driver_call

__all__ = ["Bucket"]


class Bucket:
    """A context whose shapes never change, so that its launches can be captured.

    Args:
        device: held by the caller, as the current thread's.
        engine: the deserialised plan.
        spec: of the component.
        profile: which of the plan's profiles.
        axes: lengths of the axes.
        captured: whether to replay a captured graph from the second run on.

    Raises:
        EngineError: the library refuses the shapes, or memory runs out.

    """

    def __init__(
        self, device: Device, engine: Any, library: Any, spec: ComponentSpec, profile: int, axes: Mapping[str, int],
        *, captured: bool,
    ) -> None:  # fmt: skip
        self._device, self._engine, self._spec = device, engine, spec
        self._captured = captured
        self._runs = 0
        self._generation = -1
        self._graph: Any = None
        self._buffers: dict[str, tuple[DeviceBuffer, PinnedBuffer]] = {}
        self._context = engine.create_execution_context(library.ExecutionContextAllocationStrategy.USER_MANAGED)
        if self._context is None:
            raise EngineError(f"{spec.name}: no execution context could be made; the device may be out of memory")
        try:
            self._bind(profile, axes)
        except BaseException:
            self.close()
            raise

    def _bind(self, profile: int, axes: Mapping[str, int]) -> None:
        context, stream = self._context, int(self._device.stream)
        self._must(context.set_optimization_profile_async(profile, stream), f"profile {profile}")
        for tensor in (*self._spec.inputs, *self._spec.outputs):
            size = math.prod(tensor.resolve(axes)) * np.dtype(tensor.dtype).itemsize
            device = DeviceBuffer(size)
            self._buffers[tensor.name] = (device, host := PinnedBuffer(size))
            ctypes.memset(host.address, 0, host.size)
            self._must(context.set_tensor_address(tensor.name, device.address), f"the address of {tensor.name}")
        for tensor in self._spec.inputs:
            shape = tensor.resolve(axes)
            self._must(context.set_input_shape(tensor.name, shape), f"{tensor.name} of shape {list(shape)}")

    def run(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Run once: copy in, launch, wait, copy out. The caller holds the device."""
        self._use_scratch()
        for name, array in inputs.items():
            ctypes.memmove(self._buffers[name][1].address, array.ctypes.data, array.nbytes)
        if self._graph is not None:
            driver_call("cuGraphLaunch", self._graph, self._device.stream)
        elif self._captured and self._runs:
            # Not at the first run: until then the library may still allocate and load.
            self._graph = self._capture()
            driver_call("cuGraphLaunch", self._graph, self._device.stream)
        else:
            self._launch()
        self._device.synchronize()
        self._runs += 1
        for name, array in outputs.items():
            ctypes.memmove(array.ctypes.data, self._buffers[name][1].address, array.nbytes)

    def _use_scratch(self) -> None:
        """Tell the context where its scratch memory is; a captured graph remembers an old place and is dropped."""
        address, size = self._device.scratch(int(self._engine.device_memory_size_v2))
        if self._generation != self._device.scratch_generation:
            self._drop_graph()
            self._runs = 0
            self._context.set_device_memory(address, size)
            self._generation = self._device.scratch_generation

    def _sizes(self, tensors: tuple[TensorSpec, ...]) -> list[tuple[int, int, int]]:
        pairs = [self._buffers[tensor.name] for tensor in tensors]
        return [(device.address, host.address, host.size) for device, host in pairs]

    def _launch(self) -> None:
        stream = self._device.stream
        for device, host, size in self._sizes(self._spec.inputs):
            driver_call("cuMemcpyHtoDAsync", device, host, size, stream)
        self._must(self._context.execute_async_v3(int(stream)), "the launch")
        for device, host, size in self._sizes(self._spec.outputs):
            driver_call("cuMemcpyDtoHAsync", host, device, size, stream)

    def _capture(self) -> Any:
        """Record a launch. Thread-local: other threads may allocate meanwhile without spoiling it."""
        stream = self._device.stream
        driver_call("cuStreamBeginCapture", stream, cuda().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
        try:
            self._launch()
        except EngineError:
            # The capture is ended in any case, or the stream stays unusable; the launch's error is the one to tell.
            cuda().cuStreamEndCapture(stream)
            raise
        graph = driver_call("cuStreamEndCapture", stream)
        try:
            return driver_call("cuGraphInstantiate", graph, 0)
        finally:
            driver_call("cuGraphDestroy", graph)

    def _must(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(f"{self._spec.name}: the library refuses {what}; its log tells why")

    def _drop_graph(self) -> None:
        graph, self._graph = self._graph, None
        if graph is not None:
            driver_call("cuGraphExecDestroy", graph)

    def close(self) -> None:
        """Free graph, context and buffers; the caller holds the device."""
        self._drop_graph()
        self._context = None
        for device, host in self._buffers.values():
            device.free()
            host.free()
        self._buffers = {}
