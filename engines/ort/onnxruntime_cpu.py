"""ONNX Runtime on the CPU: the engine that runs everywhere."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from ..bundle.bundle import Bundle
from ..bundle.compiled_cache import CompiledCache
from ..engine import check_buffers
from ..errors import EngineError
from ..memory import HOST, Buffer, host_arrays
from ..resident import release_freed, reused_memory
from ..spec import ComponentSpec, resolve_dim, split_dim
from .onnxruntime_session import open_session, provider_missing

__all__ = ["NAME", "OnnxRuntimeEngine", "static_dims", "unavailable", "version"]

NAME = "onnxruntime"
_PROVIDER = "CPUExecutionProvider"


def unavailable() -> str | None:
    """Return why it cannot run on this machine, or None."""
    return provider_missing(_PROVIDER, "cpu")


def version() -> str:
    """Return the library's version."""
    import onnxruntime

    return str(onnxruntime.__version__)


class OnnxRuntimeEngine:
    """A component in an ONNX Runtime session.

    Args:
        bundle: the bundle.
        component: name of the component.
        precision: of the graph: ``fp32`` or ``fp16``. ONNX Runtime has few float16 kernels for CPUs: it computes most
            of a float16 graph in float32 and rounds between nodes.
        threads: for one operator; None lets the library choose.

    Raises:
        EngineError: it refuses the graph.

    """

    name = NAME
    memory = HOST

    def __init__(self, bundle: Bundle, component: str, *, precision: str = "fp32", threads: int | None = None) -> None:
        graph = bundle.graph(component, precision)
        self.notes: list[str] = []
        self.spec = graph.spec
        self.precision = precision
        self._component = component
        file, dims = graph.contrib or graph.file, static_dims(graph.spec)
        settings = {"version": version(), "precision": precision, "sizes": str(dims)}
        cache = CompiledCache(bundle, component, file, engine=NAME, settings=settings)
        # Beside other weights than the file's, which are in memory, it would take another quarter of that at its peak.
        in_file = not bundle.weights(bundle.component(component).network).changes
        with reused_memory() if in_file and not cache.fits_limit() else contextlib.nullcontext():
            self._session: Any = open_session(
                bundle, component, file, _PROVIDER, threads=threads, static_dims=dims, plan_reuse=False, cache=cache
            )
        if not cache.fits_limit():
            release_freed()
        self.notes += cache.notes
        self.device = ", ".join(self._session.get_providers())

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind buffers; see :class:`~sdengine.engines.engine.Engine`."""
        session = self._session
        if session is None:
            raise EngineError(f"{self._component}: this engine has been closed")
        axes = check_buffers(self.spec, inputs, outputs)
        binding = session.io_binding()
        arrays = host_arrays(inputs), host_arrays(outputs)  # referred to by launch: the binding has only addresses
        for name, array in arrays[0].items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in arrays[1].items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

        def launch() -> None:
            try:
                session.run_with_iobinding(binding)
            except Exception as error:
                raise EngineError(
                    f"{self._component}: onnxruntime failed at {axes} with {len(arrays[0])} inputs: {error}"
                ) from error

        return launch

    def close(self) -> None:
        """Release the session."""
        self._session = None


def static_dims(spec: ComponentSpec) -> dict[str, int]:
    """Return the sizes of dimensions whose axis has only one size, by the dimension's name."""
    fixed = {axis: allowed.min for axis, allowed in spec.axes.items() if allowed.min == allowed.max}
    dims = {dim for tensor in (*spec.inputs, *spec.outputs) for dim in tensor.shape if isinstance(dim, str)}
    return {dim: resolve_dim(dim, fixed) for dim in sorted(dims) if split_dim(dim)[1] in fixed}
