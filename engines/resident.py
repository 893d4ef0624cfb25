"""Gives memory back to the system that an engine does not use any more, or has copied."""

import contextlib
import ctypes
import functools
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["release_freed", "release_mapped", "reused_memory"]

_DONTNEED = 4
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_MOST = 2**31 - 1
_LARGEST_REUSED = 32 << 20
"""glibc reuses freed blocks of up to this size where programs free such ones, and maps larger ones apart."""


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def release_freed() -> None:
    """Give freed memory back: after a graph is compiled, glibc holds hundreds of megabytes of it for reuse."""
    libc = _libc()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


_reusing = threading.Lock()
_users = 0


@contextlib.contextmanager
def reused_memory() -> Iterator[None]:
    """Let large blocks that are freed while the body runs be used again; what is free at its end goes to the system.

    Else glibc maps each of them, and unmaps it: the system clears the memory again each time. Opening a large graph in
    ONNX Runtime, which copies its weights one after the other, then takes about twice the CPU time.
    """
    global _users
    libc = _libc()
    if not hasattr(libc, "mallopt"):
        yield
        return
    with _reusing:
        _users += 1
        for threshold in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            libc.mallopt(threshold, _MOST)
    try:
        yield
    finally:
        with _reusing:
            _users -= 1
            if not _users:  # as glibc sets them itself where large blocks are freed
                libc.mallopt(_MMAP_THRESHOLD, _LARGEST_REUSED)
                libc.mallopt(_TRIM_THRESHOLD, 2 * _LARGEST_REUSED)
                release_freed()


def release_mapped(file: Path) -> int:
    """Unload the pages of a mapped file; they are read from the file again when they are used.

    Args:
        file: a file that this process may have mapped. Only mappings that it cannot write to are unloaded: those hold
            nothing but what is in the file.

    Returns:
        How many bytes of mappings were unloaded; 0 where the system does not list what is mapped.

    """
    libc, released = _libc(), 0
    if libc is None:
        return 0
    path = str(file.resolve())
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            addresses, access, _, _, _, *name = line.split(maxsplit=5)
            if name == [path] and "w" not in access:
                start, end = (int(number, 16) for number in addresses.split("-"))
                if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _DONTNEED) == 0:
                    released += end - start
    return released
