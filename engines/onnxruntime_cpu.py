"""ONNX Runtime on the CPU: the engine that runs everywhere."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .bundle import Bundle
from .engine import Array
from .errors import EngineError, EngineUnavailableError

__all__ = ["NAME", "OnnxRuntimeEngine", "unavailable", "version"]

NAME = "onnxruntime"
_PROVIDER = "CPUExecutionProvider"


def unavailable() -> str | None:
    """Return why it cannot run here, or None."""
    try:
        import onnxruntime
    except ImportError:
        return 'onnxruntime is not installed; pip install "sdengine[cpu]"'
    if _PROVIDER not in onnxruntime.get_available_providers():
        return f"this build of onnxruntime has no {_PROVIDER}"
    return None


def version() -> str:
    """Return the library's version."""
    import onnxruntime

    return str(onnxruntime.__version__)


class OnnxRuntimeEngine:
    """A component in an ONNX Runtime session.

    Args:
        bundle: where the graph and its weights are.
        component: which one.
        precision: which graph: ``fp32`` or ``fp16``. ONNX Runtime has few float16 kernels for CPUs: it computes most
            of a float16 graph in float32 and rounds between nodes.
        threads: for one operator; None lets the library choose.

    Raises:
        EngineUnavailableError: the library is missing.
        EngineError: it refuses the graph.
    """

    name = NAME

    def __init__(self, bundle: Bundle, component: str, *, precision: str = "fp32", threads: int | None = None) -> None:
        reason = unavailable()
        if reason is not None:
            raise EngineUnavailableError(reason)
        import onnxruntime

        graph = bundle.graph(component, precision)
        self.spec = graph.spec
        self.precision = precision
        self._component = component
        bundle.checked_file(graph.file)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(bundle.file(graph.file)), options, providers=[_PROVIDER]
            )
        except Exception as error:  # onnxruntime raises a dozen types of its own
            raise EngineError(f"{component}: onnxruntime cannot open {graph.file}: {error}") from error
        self.device = ", ".join(self._session.get_providers())
        self._names = [tensor.name for tensor in self.spec.outputs]

    def __call__(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Run once; see :class:`~sdengine.engines.engine.Engine`."""
        if self._session is None:
            raise EngineError(f"{self._component}: this engine has been closed")
        axes = self.spec.axes_of({name: array.shape for name, array in inputs.items()})
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        results: dict[str, Array] = {}
        for tensor in self.spec.outputs:
            given = None if outputs is None else outputs.get(tensor.name)
            array = np.empty(tensor.resolve(axes), tensor.dtype) if given is None else given
            binding.bind_output(tensor.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            results[tensor.name] = array
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:
            raise EngineError(f"{self._component}: onnxruntime failed at {axes}: {error}") from error
        return results

    def close(self) -> None:
        """Release the session."""
        self._session = None
