"""The interface of all engines."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .memory import Buffer, Memory
from .spec import ComponentSpec

__all__ = ["Array", "Engine", "EngineInfo", "check_buffers", "run", "run_in_engine_memory"]

Array = NDArray[np.generic]


class EngineInfo(Protocol):
    """The facts about an open engine."""

    name: str
    """``onnxruntime``, ``openvino``, ``torch``, ..."""
    device: str
    """Where it runs, as the library reports it after opening."""
    precision: str
    """What it computes in: ``fp32``, ``bf16`` or ``fp16``."""
    notes: list[str]
    """Notes for the user about how it was opened, such as a cache that could not be written."""


class Engine(EngineInfo, Protocol):
    """An executable component. It can be used as soon as it is constructed; ``close`` releases it.

    Attributes:
        spec: names, types and shapes of inputs and outputs.

    """

    spec: ComponentSpec

    @property
    def memory(self) -> Memory:
        """The memory whose buffers it runs on without copying them."""

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind buffers once, to run on them any number of times.

        Args:
            inputs: C-contiguous buffers by name, of the spec's types and shapes, in the engine's memory or on the
                host. Each run reads their current contents.
            outputs: buffers by name, which each run writes.

        Returns:
            A function that runs the component once on those buffers; it raises EngineError if the library fails. If
            outputs are on the host, it returns when they are written. With buffers in the engine's memory it only
            queues the run, in order with other work there.

        Raises:
            UsageError: a buffer does not fit the spec.

        """
        ...

    def close(self) -> None:
        """Release memory and handles; calling it twice is harmless."""
        ...


def check_buffers(
    spec: ComponentSpec, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer] | None = None
) -> dict[str, int]:
    """Check names, types, layouts and shapes of buffers; return the size of each axis.

    Raises:
        UsageError: a buffer does not fit the spec.

    """
    axes = spec.axes_of({name: array.shape for name, array in inputs.items()})
    buffers = [(tensor, inputs[tensor.name]) for tensor in spec.inputs]
    for tensor in spec.outputs if outputs is not None else ():
        array = outputs.get(tensor.name) if outputs is not None else None
        if array is None or array.shape != tensor.resolve(axes):
            shape = None if array is None else list(array.shape)
            raise UsageError(f"{spec.name}: output {tensor.name} needs shape {list(tensor.resolve(axes))}, not {shape}")
        buffers.append((tensor, array))
    for tensor, array in buffers:
        strided = isinstance(array, np.ndarray) and not array.flags.c_contiguous
        if array.dtype != np.dtype(tensor.dtype) or strided:
            raise UsageError(f"{spec.name}: {tensor.name} must be C-contiguous {tensor.dtype}, not {array.dtype}")
    return axes


def run(engine: Engine, inputs: Mapping[str, Buffer]) -> dict[str, Array]:
    """Run an engine once, into new arrays on the host."""
    axes = check_buffers(engine.spec, inputs)
    outputs: dict[str, Array] = {t.name: np.empty(t.resolve(axes), t.dtype) for t in engine.spec.outputs}
    engine.prepare(inputs, outputs)()
    return outputs


def run_in_engine_memory(engine: Engine, inputs: Mapping[str, Buffer]) -> dict[str, Buffer]:
    """Run an engine once, into new buffers in its memory."""
    axes = check_buffers(engine.spec, inputs)
    outputs = {t.name: engine.memory.zeros(t.resolve(axes), t.dtype) for t in engine.spec.outputs}
    engine.prepare(inputs, outputs)()
    return outputs
