"""torch running the reference modules themselves: the fallback, and what the others are measured against."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from .bundle import Bundle
from .engine import check_buffers
from .errors import BundleError, EngineError, EngineUnavailableError
from .memory import HOST, Buffer, host_arrays

__all__ = ["NAME", "TorchEngine", "unavailable", "version"]

NAME = "torch"
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def unavailable() -> str | None:
    """Return why it cannot run here, or None."""
    from importlib.util import find_spec

    return None if find_spec("torch") else 'torch is not installed; pip install "sdengine[export]"'


def version() -> str:
    """Return the library's version, without importing it."""
    from importlib.metadata import version as installed

    return installed("torch")


class TorchEngine:
    """A component as a torch module.

    Args:
        bundle: where the weights are.
        component: which one.
        precision: what the network computes in; ``bf16`` needs no graph of its own here.
        threads: torch's number of threads, for the whole process; None leaves it.
        device: a torch device; None takes CUDA where there is a GPU, else the CPU.

    Raises:
        EngineUnavailableError: torch is missing.
        BundleError: the weights do not fit the network.

    """

    name = NAME
    memory = HOST

    def __init__(
        self,
        bundle: Bundle,
        component: str,
        *,
        precision: str = "fp32",
        threads: int | None = None,
        device: str | None = None,
    ) -> None:
        reason = unavailable()
        if reason is not None:
            raise EngineUnavailableError(reason)
        import torch

        from .nets.build import positional

        if threads is not None:
            torch.set_num_threads(threads)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = precision
        record = bundle.component(component)
        graphs = record.graphs
        self.notes: list[str] = []
        self.spec = (graphs.get(precision) or next(iter(graphs.values()))).spec
        self._component = component
        with _LOADING:  # components that are opened at once may be of one network
            network = _load_network(bundle, record.network, getattr(torch, _DTYPES[precision]), self.device)
        self._module: Any = positional(record.kind, network)

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind buffers; see :class:`~sdengine.engines.engine.Engine`."""
        import torch

        module = self._module
        if module is None:
            raise EngineError(f"{self._component}: this engine has been closed")
        check_buffers(self.spec, inputs, outputs)
        arrays = host_arrays({**inputs, **outputs})
        given = [torch.from_numpy(arrays[tensor.name]) for tensor in self.spec.inputs]
        wanted = [torch.from_numpy(arrays[tensor.name]) for tensor in self.spec.outputs]

        def once() -> None:
            try:
                with torch.inference_mode():
                    produced = module(*(tensor.to(self.device) for tensor in given))
                    for target, value in zip(wanted, produced, strict=True):
                        target.copy_(value)
            except RuntimeError as error:
                raise EngineError(f"{self._component}: torch failed: {error}") from error

        return once

    def close(self) -> None:
        """Release the module."""
        self._module = None


_LOADING = threading.Lock()
_NETWORKS: dict[tuple[str, str, str, str], Any] = {}


def _load_network(bundle: Bundle, name: str, dtype: Any, device: str) -> Any:
    """Load a network's weights; components of one network share them while any of them is open."""
    import weakref

    from safetensors.torch import load_file

    from .nets.build import network_from_config

    record = bundle.manifest.networks[name]
    key = (str(bundle.path), bundle.manifest.files[record.weights].sha256, str(dtype), device)
    reference = _NETWORKS.get(key)
    network = None if reference is None else reference()
    if network is None:
        import torch

        with torch.device("meta"):
            network = network_from_config(bundle.config(name), dtype)
        weights = load_file(bundle.file(record.weights), device=device)
        try:
            network.load_state_dict({k: w.to(dtype) for k, w in weights.items()}, strict=True, assign=True)
        except RuntimeError as error:
            raise BundleError(f"{record.weights} does not fit the config of {name}: {error}") from error
        network.requires_grad_(False)
        _NETWORKS[key] = weakref.ref(network)
    return network
