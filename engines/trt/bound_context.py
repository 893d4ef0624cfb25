"""An execution context for one set of shapes and buffers, and, once it has run, a captured CUDA graph."""

import ctypes
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..cuda.blocks import MemoryBlock
from ..cuda.device import Device
from ..cuda.device_memory import DeviceArray
from ..cuda.driver import driver_call
from ..cuda.graph import CudaGraph, captured_graph
from ..cuda.staging import PinnedBuffer
from ..engine import Array
from ..errors import EngineError
from ..memory import Buffer
from ..spec import ComponentSpec, TensorSpec
from .contexts import Contexts

__all__ = ["BoundContext"]


class BoundContext:
    """A context whose shapes and addresses never change, so that its launches can be captured.

    Inputs and outputs on the device are used where they are. Those on the host get a place on the device and pinned
    memory, and are copied at each run.

    Args:
        device: held by the caller, as the current thread's.
        engine: the deserialised plan.
        contexts: makes the plan's contexts.
        spec: of the component.
        profile: which of the plan's profiles.
        axes: sizes of the axes.
        buffers: inputs and outputs by name; only the addresses of those on the device are used here.
        capture: whether to replay a captured graph from the second run on.

    Raises:
        EngineError: the library refuses the shapes, or memory runs out.

    """

    def __init__(
        self,
        device: Device,
        engine: Any,
        contexts: Contexts,
        spec: ComponentSpec,
        profile: int,
        axes: Mapping[str, int],
        buffers: Mapping[str, Buffer],
        *,
        capture: bool,
    ) -> None:
        self._device, self._engine, self._spec = device, engine, spec
        self._capture = capture
        self._ran = self._waited_for = False
        self._generation = -1
        self._graph: CudaGraph | None = None
        self._crossing: dict[str, tuple[MemoryBlock, PinnedBuffer, int]] = {}
        self._context = contexts.new()
        if self._context is None:
            raise EngineError(f"{spec.name}: no execution context could be made; the device may be out of memory")
        self._bind(profile, axes, buffers)

    def _bind(self, profile: int, axes: Mapping[str, int], buffers: Mapping[str, Buffer]) -> None:
        context, stream = self._context, int(self._device.stream)
        self._must(context.set_optimization_profile_async(profile, stream), f"profile {profile}")
        for tensor in (*self._spec.inputs, *self._spec.outputs):
            buffer = buffers[tensor.name]
            address = buffer.address if isinstance(buffer, DeviceArray) else self._place(tensor, axes)
            self._must(context.set_tensor_address(tensor.name, address), f"the address of {tensor.name}")
        for tensor in self._spec.inputs:
            shape = tensor.resolve(axes)
            self._must(context.set_input_shape(tensor.name, shape), f"{tensor.name} of shape {list(shape)}")

    def _place(self, tensor: TensorSpec, axes: Mapping[str, int]) -> int:
        """Allocate memory on the device for a tensor of the host; one without elements needs an address too."""
        size = math.prod(tensor.resolve(axes)) * np.dtype(tensor.dtype).itemsize
        block = self._device.blocks.block(size)
        self._crossing[tensor.name] = (block, pinned := self._device.staging.take(size), size)
        ctypes.memset(pinned.address, 0, pinned.size)
        return block.address

    def run(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Run once. The caller holds the device.

        Args:
            inputs: those on the host.
            outputs: those on the host; they are waited for.

        """
        device = self._device
        self._use_scratch()
        if device.capturing is not None:
            self._run_in_capture(bool(inputs or outputs))
            return
        if inputs and not self._waited_for:
            device.synchronize()  # the run before may not have read its inputs yet
        for name, array in inputs.items():
            ctypes.memmove(self._crossing[name][1].address, array.ctypes.data, array.nbytes)
        if self._graph is None and self._capture and self._ran:
            # Not at the first run: until then the library may still allocate and load.
            self._graph = captured_graph(device.stream, self._launch)
        if self._graph is not None:
            self._graph.launch(device.stream)
        else:
            self._launch()
        self._ran, self._waited_for = True, bool(outputs)
        if outputs:
            device.synchronize()
        for name, array in outputs.items():
            ctypes.memmove(array.ctypes.data, self._crossing[name][1].address, array.nbytes)

    def _run_in_capture(self, crossing: bool) -> None:
        assert self._device.capturing is not None
        if crossing:
            raise EngineError(f"{self._spec.name}: a loop with buffers on the host cannot be one graph")
        self._launch()
        self._device.capturing.append(self)

    def _use_scratch(self) -> None:
        """Set the context's scratch memory; where it has moved, the captured graph is dropped."""
        address, size = self._device.scratch(int(self._engine.device_memory_size_v2))
        if self._generation != self._device.generation:
            self._graph, self._ran = None, False
            self._context.set_device_memory(address, size)
            self._generation = self._device.generation

    def _sizes(self, tensors: tuple[TensorSpec, ...]) -> list[tuple[int, int, int]]:
        crossing = [self._crossing[tensor.name] for tensor in tensors if tensor.name in self._crossing]
        return [(block.address, pinned.address, size) for block, pinned, size in crossing if size]

    def _launch(self) -> None:
        stream = self._device.stream
        for device, host, size in self._sizes(self._spec.inputs):
            driver_call("cuMemcpyHtoDAsync", device, host, size, stream)
        self._must(self._context.execute_async_v3(int(stream)), "the launch")
        for device, host, size in self._sizes(self._spec.outputs):
            driver_call("cuMemcpyDtoHAsync", host, device, size, stream)

    def _must(self, done: bool, what: str) -> None:
        if not done:
            raise EngineError(f"{self._spec.name}: the library refuses {what}; its log says why")

    def close(self) -> None:
        """Release graph, context and buffers; the stream has done its work. Calling it twice is harmless."""
        self._graph = self._context = None
        while self._crossing:
            self._device.staging.give_back(self._crossing.popitem()[1][1])

    def __del__(self) -> None:
        self.close()
