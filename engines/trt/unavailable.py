"""Whether plans can run on this machine."""

from ..errors import SdengineError
from .driver import cuda
from .gpu import gpu_here
from .library import Library

__all__ = ["no_gpu", "version_of", "why_not"]


def no_gpu() -> str | None:
    """Return why no NVIDIA GPU can be used here, or None."""
    try:
        cuda()
        gpu = gpu_here()
    except SdengineError as error:
        return str(error)
    return "there is no NVIDIA GPU here, or no driver for it" if gpu is None else None


def why_not(library: Library) -> str | None:
    """Return why plans of a library cannot run here, or None."""
    reason = library.unavailable() or no_gpu()
    if reason is not None:
        return reason
    gpu = gpu_here()
    assert gpu is not None
    if library.ahead_of_time and gpu.generation in ("sm90", "sm100", "sm103"):
        return f"{library.engine} does not know {gpu.generation}; build and run with tensorrt"
    return None


def version_of(library: Library) -> str:
    """Return the library's version."""
    return str(library.load().__version__)
