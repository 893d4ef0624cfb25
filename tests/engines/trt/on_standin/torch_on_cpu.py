"""torch on the CPU in the place of torch on a GPU: device memory of the stand-in is the host's.

What the module does is put into the stand-in's stream, as a GPU's kernels are, so that it happens in the stream's order
and becomes part of what is captured.
"""

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from sdengine.engines.cuda.device_memory import DeviceArray
from sdengine.engines.eager.module import Module

from .counts import cuda

__all__ = ["StandinModule", "StandinStream"]

_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_KEPT: list[Any] = []  # what captured graphs may still call


class StandinStream:
    """See :class:`sdengine.engines.eager.device_engine.TorchStream`."""

    made: ClassVar[list["StandinStream"]] = []

    def __init__(self, number: int, stream: int) -> None:
        self.device = "cpu"
        self.stream = stream
        self.active = 0
        self.pools = 0
        self.captures: object = None  # the stand-in's memory belongs to the arrays alone
        self.made.append(self)

    def tensor(self, array: DeviceArray) -> torch.Tensor:
        assert cuda.standin_usable(array.address, max(array.nbytes, 1))
        view = np.frombuffer((ctypes.c_byte * array.nbytes).from_address(array.address), array.dtype)
        tensor = torch.from_numpy(view.reshape(array.shape))
        tensor.array = array  # type: ignore[attr-defined]
        return tensor

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        self.active += 1
        yield
        self.active -= 1

    @contextlib.contextmanager
    def pool(self) -> Iterator[None]:
        self.pools += 1
        yield

    def close(self) -> None:
        assert not self.active


class StandinModule(Module):
    """A module whose runs are put into the stream that is torch's current one."""

    def run(self, inputs: Any, outputs: Any) -> None:
        (stream,) = {made.stream for made in StandinStream.made if made.active}
        function = _HOST_FUNCTION(lambda _: Module.run(self, inputs, outputs))
        _KEPT.append(function)
        assert cuda.cuLaunchHostFunc(ctypes.c_void_p(stream), function, None) == 0
