"""A stand-in for the ``tensorrt`` package: what a plan does is done by ONNX Runtime, through the plan's own addresses.

It is as strict as the real one: shapes must lie in the profile, every address must be set, scratch memory must have
been given, and a launch is enqueued on the stream, so that it is recorded by a capture like any other work.
"""

import ctypes
import enum
import importlib.machinery
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from sdengine.engines.bundle.graph_file import read_graph

from .counts import cuda

__all__ = ["RTX_VERSION", "VERSION", "install"]

VERSION = "99.1.0"
RTX_VERSION = "98.1.0"
SCRATCH = {"denoiser": 4096}
_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_KEPT: list[Any] = []  # what captured graphs may still call


class ILogger:
    """The base class of loggers."""


class ExecutionContextAllocationStrategy:
    USER_MANAGED = "user managed"


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, data: Any) -> "Engine | None":
        try:
            return Engine(json.loads(bytes(memoryview(data))))
        except ValueError:
            self.logger.log(types.SimpleNamespace(name="ERROR"), "the plan's magic number is wrong")
            return None


class Engine:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.profiles = plan["profiles"]
        self.device_memory_size_v2 = SCRATCH.get(plan["component"], 256)
        self.refittable = plan.get("refittable", False)
        self.streamable_weights_size = plan.get("streamable", 0)
        self.weight_streaming_budget_v2 = self.streamable_weights_size
        self.refits = 0
        self.weights: dict[str, Any] = {}
        initialisers = read_graph(Path(plan["graph"])).initialisers
        self.refittable_weights = [name for name, tensor in initialisers.items() if tensor.offset is not None]
        self.missing = set(self.refittable_weights) if plan.get("stripped", False) else set()
        self.open_session()

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return int(self.device_memory_size_v2) >> profile

    def open_session(self) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in self.weights.values()]
        options.add_external_initializers(list(self.weights), values)
        self.session = onnxruntime.InferenceSession(self.plan["graph"], options, providers=["CPUExecutionProvider"])

    def get_weight_streaming_automatic_budget(self) -> int:
        return self.streamable_weights_size // 4

    def create_runtime_config(self) -> "IRuntimeConfig":
        return IRuntimeConfig()

    def create_execution_context(self, how: Any) -> "Context":
        if isinstance(how, IRuntimeConfig):
            assert how.strategy == ExecutionContextAllocationStrategy.USER_MANAGED
            assert how.dynamic_shapes_kernel_specialization_strategy == DynamicShapesKernelSpecializationStrategy.EAGER
            return Context(self, how.cache)
        assert how == ExecutionContextAllocationStrategy.USER_MANAGED
        return Context(self)


class DataType(enum.Enum):
    FLOAT = np.float32
    INT64 = np.int64


class Weights:
    def __init__(self, kind: DataType, pointer: int, count: int) -> None:
        size = count * np.dtype(kind.value).itemsize
        self.array = np.frombuffer((ctypes.c_byte * size).from_address(pointer), kind.value)


class Refitter:
    """Takes weights by name; they reach the engine when it is refitted."""

    def __init__(self, engine: Engine, logger: Any) -> None:
        self.engine, self.logger = engine, logger
        self.given: dict[str, Weights] = {}

    def get_all_weights(self) -> list[str]:
        return [*self.engine.refittable_weights, "a name that the compiler made"]

    def get_missing_weights(self) -> list[str]:
        return sorted(self.engine.missing - set(self.given))

    def set_named_weights(self, name: str, weights: Weights) -> bool:
        self.given[name] = weights
        return name in self.engine.refittable_weights

    def refit_cuda_engine_async(self, stream: int) -> bool:
        assert stream
        shapes = read_shapes(self.engine.plan["graph"])
        self.engine.weights = {name: given.array.reshape(shapes[name]).copy() for name, given in self.given.items()}
        self.engine.missing = set()
        self.engine.refits += 1
        self.engine.open_session()
        return True


def read_shapes(graph: str) -> dict[str, list[int]]:
    import onnx

    model = onnx.load(graph, load_external_data=False)
    return {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}


class DynamicShapesKernelSpecializationStrategy(enum.Enum):
    LAZY = 0
    EAGER = 1


class IRuntimeCache:
    """Holds the shapes that a context has met, as the real one holds kernels for them."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()

    def serialize(self) -> bytes:
        return json.dumps(["kernels", *sorted(self.kernels)]).encode()

    def deserialize(self, data: bytes) -> bool:
        magic, *kernels = json.loads(data)
        self.kernels |= set(kernels)
        return bool(magic == "kernels")


class IRuntimeConfig:
    def __init__(self) -> None:
        self.strategy = ""
        self.dynamic_shapes_kernel_specialization_strategy = DynamicShapesKernelSpecializationStrategy.LAZY
        self.cache: IRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        self.cache = cache
        return True


_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}


class Context:
    def __init__(self, engine: Engine, cache: IRuntimeCache | None = None) -> None:
        self.engine = engine
        self.cache = cache
        self.profile: dict[str, Any] | None = None
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch: tuple[int, int] | None = None

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream, "the default stream waits for all others"
        self.profile = self.engine.profiles[index]
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert self.profile is not None
        ends = self.profile.get(name)
        self.shapes[name] = shape
        return ends is None or all(low <= n <= high for low, n, high in zip(ends[0], shape, ends[2], strict=True))

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        assert address % 256 == 0 and size >= self.engine.device_memory_size_v2
        self.scratch = (address, size)

    def execute_async_v3(self, stream: int) -> bool:
        session, shapes, addresses = self.engine.session, dict(self.shapes), dict(self.addresses)
        assert self.scratch is not None
        scratch, size = self.scratch
        inputs = [(node.name, _DTYPES[node.type]) for node in session.get_inputs()]
        outputs = [(node.name, _DTYPES[node.type]) for node in session.get_outputs()]
        if set(addresses) != {name for name, _ in inputs + outputs} or set(shapes) != {name for name, _ in inputs}:
            return False
        assert not self.engine.missing, "a stripped plan runs only after a refit"
        if self.cache is not None:
            self.cache.kernels.add(f"{sorted(shapes.items())}")

        def work(_: int) -> None:
            assert cuda.standin_usable(scratch, size)
            ctypes.memset(scratch, 0x5A, size)
            feed = {name: _array(addresses[name], shapes[name], dtype) for name, dtype in inputs}
            for (name, dtype), result in zip(outputs, session.run([n for n, _ in outputs], feed), strict=True):
                _array(addresses[name], result.shape, dtype)[...] = result

        function = _HOST_FUNCTION(work)
        _KEPT.append(function)
        return int(cuda.cuLaunchHostFunc(ctypes.c_void_p(stream), function, None)) == 0


def _array(address: int, shape: tuple[int, ...], dtype: type) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    assert cuda.standin_usable(address, size)
    return np.frombuffer((ctypes.c_byte * size).from_address(address), dtype).reshape(shape)


def install() -> None:
    """Make ``import tensorrt`` and ``import tensorrt_rtx`` give this; only the latter compiles kernels as it runs."""
    both = (ILogger, Runtime, ExecutionContextAllocationStrategy, DataType, Weights, Refitter)
    for name, version, parts in (
        ("tensorrt", VERSION, both),
        ("tensorrt_rtx", RTX_VERSION, (*both, IRuntimeConfig, DynamicShapesKernelSpecializationStrategy)),
    ):
        module: Any = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__version__ = version
        for part in parts:
            setattr(module, part.__name__, part)
        sys.modules[name] = module
