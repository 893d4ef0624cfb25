"""ONNX Runtime on NVIDIA GPUs, from the bundle's graphs: no plans need to be built."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from ..bundle.bundle import Bundle
from ..cuda.device_memory import host_buffers
from ..cuda.engine_on_device import EngineOnDevice
from ..cuda.gpu import device_number, free_memory, no_gpu
from ..engine import check_buffers
from ..errors import EngineError, EngineUnavailableError
from ..memory import Buffer
from .onnxruntime_session import open_session, provider_missing

__all__ = ["NAME", "OnnxRuntimeCudaEngine", "unavailable", "version"]

NAME = "onnxruntime-cuda"

_PROVIDER = "CUDAExecutionProvider"
_DEVICE = "cuda"
_WORK = {
    "Attention", "Conv", "FusedConv", "FusedMatMul", "Gelu", "Gemm", "InstanceNormalization", "LayerNormalization",
    "MatMul", "MultiHeadAttention", "QuickGelu", "Resize", "Sigmoid", "SkipLayerNormalization", "Softmax",
}  # fmt: skip
"""Operators that must run on the GPU. Those that compute shapes belong on the CPU."""
_RECORD = "session.record_ep_graph_assignment_info"
"""Makes a session report where each operator runs."""


def unavailable() -> str | None:
    """Return why it cannot run on this machine, or None."""
    return provider_missing(_PROVIDER, "cuda") or no_gpu()


def version() -> str:
    """Return the library's version."""
    import onnxruntime

    return str(onnxruntime.__version__)


class OnnxRuntimeCudaEngine(EngineOnDevice):
    """A component in an ONNX Runtime session on a GPU.

    It uses the same stream and memory as other engines on that GPU, so that the host does not wait between components.
    CUDA graphs are not used: ONNX Runtime captures only graphs that compute no shapes, and these do.

    Args:
        bundle: the bundle.
        component: name of the component.
        precision: of the graph: ``fp16`` or ``fp32``.
        device: the GPU, as ``cuda:N``; None is the first.
        memory_limit: most bytes that this component may take; None is the memory that is free when it is opened.

    Raises:
        UsageError: the device is no GPU.
        EngineUnavailableError: the provider fell back to the CPU.
        EngineError: the library refuses the graph, or has no kernel on the GPU for an operator that matters.

    """

    name = NAME

    def __init__(
        self,
        bundle: Bundle,
        component: str,
        *,
        precision: str = "fp16",
        device: str | None = None,
        memory_limit: int | None = None,
    ) -> None:
        graph = bundle.graph(component, precision)
        self.notes: list[str] = []
        self.spec = graph.spec
        self.precision = precision
        self._number = device_number(device)
        with self._opening(self._number) as shared:
            limit = memory_limit if memory_limit is not None else free_memory(self._number)
            options = _provider_options(self._number, int(shared.stream), limit)
            with shared.held():
                self._session: Any = open_session(
                    bundle, component, graph.file, _PROVIDER, options, config=[(_RECORD, "1")]
                )
            _check_placement(component, self._session)

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind buffers; see :class:`~sdengine.engines.engine.Engine`."""
        import onnxruntime

        device, session = self._open_device(), self._session
        axes = check_buffers(self.spec, inputs, outputs)
        binding = session.io_binding()
        on_device = {name: self.memory.place_for(buffer) for name, buffer in {**inputs, **outputs}.items()}
        for name, buffers, bind in (
            *((name, inputs, binding.bind_input) for name in inputs),
            *((name, outputs, binding.bind_output) for name in outputs),
        ):
            array = on_device[name]
            bind(name, _DEVICE, self._number, buffers[name].dtype, array.shape, array.address)
        host_inputs, host_outputs = host_buffers(inputs), host_buffers(outputs)
        run_options = onnxruntime.RunOptions()
        # One stream orders everything; reading the result waits for it.
        run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def launch() -> None:
            self._open_device()
            if device.capturing is not None:
                raise EngineError(f"{self.spec.name}: {NAME} cannot be part of one graph; use --cuda-graph step")
            with device.held():
                for name, source in host_inputs.items():
                    self.memory.copy(on_device[name], source)
                try:
                    session.run_with_iobinding(binding, run_options)
                except Exception as error:
                    raise EngineError(f"{self.spec.name}: onnxruntime failed at {axes}: {error}") from error
                for name, target in host_outputs.items():
                    target[...] = self.memory.read(on_device[name])

        return launch

    def _release(self) -> None:
        self._session = None


def _provider_options(number: int, stream: int, limit: int) -> dict[str, str]:
    """Return the provider's options (https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html)."""
    return {
        "device_id": str(number),
        "user_compute_stream": str(stream),
        "gpu_mem_limit": str(limit),
        "arena_extend_strategy": "kSameAsRequested",  # by powers of two it would take up to twice what it needs
        "cudnn_conv_algo_search": "HEURISTIC",  # the exhaustive search would be done again for every new shape
        "use_tf32": "0",  # float32 means float32 here
    }


def _check_placement(component: str, session: Any) -> None:
    """Refuse a session that runs on the CPU, or sends work there.

    Raises:
        EngineUnavailableError: the provider was left out: its libraries do not load.
        EngineError: operators that matter run elsewhere.

    """
    if session.get_providers()[0] != _PROVIDER:
        raise EngineUnavailableError(
            f"{component}: onnxruntime could not load its {_PROVIDER} and took {session.get_providers()[0]}; CUDA and "
            'cuDNN of the versions that it was built for must be installed: pip install "onnxruntime-gpu[cuda,cudnn]"'
        )
    elsewhere = Counter(
        node.op_type
        for part in session.get_provider_graph_assignment_info()
        if part.ep_name != _PROVIDER
        for node in part.get_nodes()
        if node.op_type in _WORK
    )
    if elsewhere:
        kinds = ", ".join(f"{count} {kind}" for kind, count in elsewhere.most_common(5))
        raise EngineError(
            f"{component}: this onnxruntime has no CUDA kernel for {kinds}; install a newer onnxruntime-gpu"
        )
