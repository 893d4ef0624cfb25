"""The one contract of all engines."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .spec import ComponentSpec

__all__ = ["Array", "Engine", "EngineInfo"]

Array = NDArray[np.generic]


class EngineInfo(Protocol):
    """What can be told about an open engine."""

    name: str
    """``onnxruntime``, ``openvino``, ``torch``, ..."""
    device: str
    """Where it runs, as the library names it: read from the open engine, not from what was asked."""
    precision: str
    """What it computes in: ``fp32``, ``bf16`` or ``fp16``."""


class Engine(EngineInfo, Protocol):
    """A component, executable. It is usable when it has been constructed; ``close`` releases it.

    Attributes:
        spec: names, types and shapes of inputs and outputs.
    """

    spec: ComponentSpec

    def __call__(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Run once.

        Args:
            inputs: C-contiguous arrays by name, of the spec's types and shapes.
            outputs: arrays to write into, by name; those not given are allocated.

        Returns:
            All outputs by name.

        Raises:
            UsageError: an input does not fit the spec.
            EngineError: the library failed.
        """
        ...

    def close(self) -> None:
        """Release memory and handles; calling it twice is harmless."""
        ...
