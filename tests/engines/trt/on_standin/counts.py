"""What the stand-in for libcuda has counted."""

import ctypes

__all__ = ["count", "cuda"]

_NAMES = (
    "allocated", "freed", "double_freed", "after_free", "graphs_alive", "launches", "contexts", "streams",
    "wrong_context", "captures", "synchronised", "pinned_alive", "device_alive", "events_alive", "waited",
    "bytes_to_host",
)  # fmt: skip

cuda = ctypes.CDLL("libcuda.so.1")
cuda.standin_limit.argtypes = [ctypes.c_size_t]
cuda.standin_usable.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def count(name: str) -> int:
    """Return a counter of the stand-in."""
    return int(cuda.standin_count(_NAMES.index(name)))
