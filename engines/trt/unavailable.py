"""Whether plans can run on this machine."""

from ..cuda.gpu import gpu_here, no_gpu
from .library import Library

__all__ = ["version_of", "why_not"]


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
