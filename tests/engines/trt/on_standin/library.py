"""A stand-in for the ``tensorrt`` package: what a plan does is done by ONNX Runtime, through the plan's own addresses.

It is as strict as the real one: shapes must lie in the profile, every address must be set, scratch memory must have
been given, and a launch is enqueued on the stream, so that it is recorded by a capture like any other work.
"""

import ctypes
import importlib.machinery
import json
import sys
import types
from typing import Any

import numpy as np
import onnxruntime

from .counts import cuda

__all__ = ["VERSION", "install"]

VERSION = "99.1.0"
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

    def deserialize_cuda_engine(self, data: bytes) -> "Engine | None":
        try:
            return Engine(json.loads(data))
        except ValueError:
            self.logger.log(types.SimpleNamespace(name="ERROR"), "the plan's magic number is wrong")
            return None


class Engine:
    def __init__(self, plan: dict[str, Any]) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(plan["graph"], options, providers=["CPUExecutionProvider"])
        self.profiles = plan["profiles"]
        self.device_memory_size_v2 = SCRATCH.get(plan["component"], 256)

    def create_execution_context(self, strategy: str) -> "Context":
        assert strategy == ExecutionContextAllocationStrategy.USER_MANAGED
        return Context(self)


_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
}


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
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
    """Make ``import tensorrt`` give this."""
    module: Any = types.ModuleType("tensorrt")
    module.__spec__ = importlib.machinery.ModuleSpec("tensorrt", None)
    module.__version__ = VERSION
    for part in (ILogger, Runtime, ExecutionContextAllocationStrategy):
        setattr(module, part.__name__, part)
    sys.modules["tensorrt"] = module
