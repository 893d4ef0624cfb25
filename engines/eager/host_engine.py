"""torch on the CPU."""

from collections.abc import Callable, Mapping

from ..bundle.bundle import Bundle
from ..engine import check_buffers
from ..errors import EngineError
from ..memory import HOST, Buffer, host_arrays
from . import NAME
from .module import Module

__all__ = ["HostTorchEngine"]


class HostTorchEngine:
    """A component as a torch module on the CPU; for its arguments see :func:`~sdengine.engines.eager.open_torch`."""

    name = NAME
    memory = HOST
    device = "cpu"

    def __init__(
        self,
        bundle: Bundle,
        component: str,
        *,
        precision: str,
        threads: int | None,
        compile: bool,  # noqa: A002
        cuda_graph: str | None,
    ) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self.notes = [] if cuda_graph is None else ["cuda_graph is of no use on a CPU"]
        self.precision = precision
        graphs = bundle.component(component).graphs
        self.spec = (graphs.get(precision) or next(iter(graphs.values()))).spec
        self._module: Module | None = Module(bundle, component, precision=precision, device="cpu", compile=compile)

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind buffers; see :class:`~sdengine.engines.engine.Engine`."""
        import torch

        module = self._module
        if module is None:
            raise EngineError(f"{self.spec.name}: this engine has been closed")
        check_buffers(self.spec, inputs, outputs)
        arrays = host_arrays({**inputs, **outputs})
        sources = [torch.from_numpy(arrays[tensor.name]) for tensor in self.spec.inputs]
        targets = [torch.from_numpy(arrays[tensor.name]) for tensor in self.spec.outputs]
        return lambda: module.run(sources, targets)

    def close(self) -> None:
        """Release the module."""
        self._module = None
