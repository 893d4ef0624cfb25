"""The ``torch`` engine: runs the reference modules; the others are verified against it."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from ..bundle.bundle import Bundle
from ..install_hint import install_hint

if TYPE_CHECKING:
    from ..engine import Engine

__all__ = ["NAME", "open_torch", "preferred", "unavailable", "version"]

NAME = "torch"


def unavailable() -> str | None:
    """Return why it cannot run on this machine, or None."""
    from importlib.util import find_spec

    return None if find_spec("torch") else f"torch is not installed; {install_hint('export')}"


def version() -> str:
    """Return the library's version, without importing it."""
    from importlib.metadata import version as installed

    return installed("torch")


def finds_gpu() -> bool:
    """Whether torch is installed and finds a GPU; imports torch."""
    return unavailable() is None and _resolved(None) != "cpu"


def preferred(graphs: Collection[str], device: str | None) -> str | None:
    """Return the default precision: half precision belongs on a GPU, float32 on a CPU."""
    order = ("fp16", "bf16", "fp32") if _resolved(device) != "cpu" else ("fp32", "bf16", "fp16")
    return next((precision for precision in order if precision in graphs), None)


def open_torch(
    bundle: Bundle,
    component: str,
    *,
    precision: str = "fp32",
    threads: int | None = None,
    device: str | None = None,
    cuda_graph: str | None = None,
    compile: bool = False,  # noqa: A002 - torch's own name for it
) -> "Engine":
    """Open a component as a torch module.

    Args:
        bundle: the bundle.
        component: name of the component.
        precision: of the network; ``bf16`` needs no graph of its own here.
        threads: torch's number of threads, for the whole process; None does not change it.
        device: ``cpu``, ``cuda`` or ``cuda:N``; None is the first GPU that torch finds, else the CPU.
        cuda_graph: on a GPU, which launches are captured as one CUDA graph: those of a ``step`` (the default), of all
            steps (``loop``), or none (``off``).
        compile: whether to compile what runs at every step with ``torch.compile``, for each set of shapes.

    Raises:
        EngineUnavailableError: for a GPU, the driver or cuda-bindings are missing.
        UsageError: an option has no such value.
        BundleError: the weights do not fit the network.

    """
    resolved = _resolved(device)
    if resolved == "cpu":
        from .host_engine import HostTorchEngine

        return HostTorchEngine(
            bundle, component, precision=precision, threads=threads, compile=compile, cuda_graph=cuda_graph
        )
    from .device_engine import DeviceTorchEngine

    return DeviceTorchEngine(
        bundle, component, precision=precision, device=resolved, cuda_graph=cuda_graph or "step", compile=compile
    )


def _resolved(device: str | None) -> str:
    if device is not None:
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
