"""torch on an NVIDIA GPU, in the same memory and stream as plans, so that the host need not wait between steps."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..bundle.bundle import Bundle
from ..cuda.device import Device
from ..cuda.device_memory import DeviceArray, host_buffers
from ..cuda.engine_on_device import EngineOnDevice
from ..cuda.gpu import device_number, no_gpu
from ..engine import check_buffers
from ..errors import EngineError, EngineUnavailableError
from ..memory import Buffer
from . import NAME, kernels
from .module import Module

__all__ = ["DeviceTorchEngine"]


class DeviceTorchEngine(EngineOnDevice):
    """A component as a torch module on a GPU; for its arguments see :func:`~sdengine.engines.eager.open_torch`.

    Buffers of the device are used where they are, as tensors on the same bytes. Those of the host are copied at each
    run. torch's current stream is the device's while the module runs.

    Raises:
        EngineUnavailableError: the driver or cuda-bindings are missing.
        BundleError: the weights do not fit the network.

    """

    name = NAME

    def __init__(
        self,
        bundle: Bundle,
        component: str,
        *,
        precision: str,
        device: str,
        cuda_graph: str,
        compile: bool,  # noqa: A002
    ) -> None:
        reason = no_gpu()
        if reason is not None:
            raise EngineUnavailableError(reason)
        number = device_number(device)
        self.notes: list[str] = []
        self.precision = precision
        graphs = bundle.component(component).graphs
        self.spec = (graphs.get(precision) or next(iter(graphs.values()))).spec
        self._cuda_graph = cuda_graph
        with self._opening(number) as shared, shared.held():
            self._torch = TorchStream(number, int(shared.stream))
            with self._torch.current():
                self._module = Module(
                    bundle, component, precision=precision, device=self._torch.device, compile=compile
                )
        if precision != "fp32" and (missing := kernels.unavailable()) is not None:
            self.notes.append(missing)

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind buffers; see :class:`~sdengine.engines.engine.Engine`."""
        device = self._open_device()
        check_buffers(self.spec, inputs, outputs)
        on_device = {name: self.memory.place_for(buffer) for name, buffer in {**inputs, **outputs}.items()}
        sources = [self._torch.tensor(on_device[tensor.name]) for tensor in self.spec.inputs]
        targets = [self._torch.tensor(on_device[tensor.name]) for tensor in self.spec.outputs]
        host_inputs, host_outputs = host_buffers(inputs), host_buffers(outputs)

        def queue_launches() -> None:
            self._launch(device, sources, targets)

        run = self.memory.capture(queue_launches) if self._cuda_graph == "step" else queue_launches

        def launch() -> None:
            device = self._open_device()
            with device.held():
                if device.capturing is not None:
                    if host_inputs or host_outputs:
                        raise EngineError(f"{self.spec.name}: a loop with buffers on the host cannot be one graph")
                    queue_launches()
                    return
                for name, array in host_inputs.items():
                    self.memory.copy(on_device[name], array)
                run()
                for name, array in host_outputs.items():
                    array[...] = self.memory.read(on_device[name])

        return launch

    def _launch(self, device: Device, sources: Sequence[Any], targets: Sequence[Any]) -> None:
        """Queue the module's launches in the stream; a capture refers to all memory that they use."""
        if device.capturing is None:
            pool: Any = contextlib.nullcontext()
        else:
            pool = self._torch.pool()
            # The pool itself: what was captured may be replayed after this engine has been closed.
            device.capturing.append((sources, targets, self._torch.captures))
        with self._torch.current(), pool:
            self._module.run(sources, targets)

    def _release(self) -> None:
        del self._module
        self._torch.close()


class TorchStream:
    """A device's stream as torch's current stream, tensors on the device's buffers, and the memory of captures.

    Args:
        number: of the GPU.
        stream: the driver's handle.

    """

    def __init__(self, number: int, stream: int) -> None:
        import torch

        self.device = f"cuda:{number}"
        self._stream: Any = torch.cuda.ExternalStream(stream, device=self.device)  # type: ignore[no-untyped-call]
        # One pool for all captures of an engine: they are replayed one after another in one stream, and none reads
        # what another has left in this memory.
        self.captures: Any = torch.cuda.MemPool()

    def tensor(self, array: DeviceArray) -> Any:
        """Return a tensor on the same bytes, which it keeps alive."""
        import torch

        return torch.as_tensor(array, device=self.device)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the stream torch's current one."""
        import torch

        with torch.cuda.stream(self._stream):
            yield

    def pool(self) -> Any:
        """Let torch allocate in the block from ``captures``, a pool that is used for nothing else while it exists."""
        import torch

        return torch.cuda.use_mem_pool(self.captures, device=self.device)

    def close(self) -> None:
        """Free the memory that torch's allocator caches, since other engines may need it."""
        import torch

        self.captures = None
        torch._C._cuda_clearCublasWorkspaces()  # they belong to the stream, which may end here
        torch.cuda.empty_cache()
