"""A component as a callable torch module, compiled if requested."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..bundle.bundle import Bundle
from ..errors import EngineError
from .load_network import load_network

__all__ = ["Module"]


class Module:
    """A component's torch module; its inputs and outputs are lists of tensors in the spec's order.

    Args:
        bundle: the bundle.
        component: name of the component.
        precision: of the network.
        device: a torch device.
        compile: whether to compile it, once for each set of shapes, if it runs at every step; components that run once
            for an image are not compiled. torch has its own cache of compiled code (``TORCHINDUCTOR_CACHE_DIR``).

    Attributes:
        spec: of the graph in that precision; if the bundle has none, of its first graph.

    """

    def __init__(self, bundle: Bundle, component: str, *, precision: str, device: str, compile: bool) -> None:  # noqa: A002
        import torch

        from ..nets.component_module import component_module

        record = bundle.component(component)
        graph = record.graphs.get(precision) or next(iter(record.graphs.values()))
        self.spec = graph.spec
        self._component = component
        self._quiet: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
        self._call: Any = component_module(
            record.kind, load_network(bundle, record.network, precision, device), graph.spec
        )
        if compile and any(tensor.changes != "request" for tensor in graph.spec.inputs):
            # Compiled for static sizes: kernels for dynamic ones are slower, and few sizes are used.
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_SHAPES)
            self._call = torch.compile(self._call, dynamic=False, fullgraph=True)
            # torch's compiler warns of its own use of deprecated parts of torch. Warning filters hold for the whole
            # process, so only a compiled component changes them.
            self._quiet = _without_warnings

    def run(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        """Run once, and write ``outputs``.

        Raises:
            EngineError: torch failed.

        """
        import torch

        try:
            with torch.inference_mode(), _settings(), self._quiet():
                for target, value in zip(outputs, self._call(*inputs), strict=True):
                    target.copy_(value)
        except torch.OutOfMemoryError as error:
            raise EngineError(f"{self._component}: the device is out of memory; {_ADVICE} ({error})") from error
        except RuntimeError as error:
            raise EngineError(f"{self._component}: torch failed: {error}") from error


_MOST_SHAPES = 64
_ADVICE = "generate smaller or fewer images at once, or with low memory"


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Set torch's fastest kernels of full precision, whatever other settings the process has."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with (
        torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False),
        sdpa_kernel(order, set_priority=True),
    ):
        yield


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")
        yield
