"""Pages of a mapped file leave the process and come back as they were."""

import ctypes
import mmap
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from sdengine.engines.resident import release_freed, release_mapped, reused_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")

_SIZE = 32 * 2**20


def _resident(file: Path) -> int:
    """Bytes of a file's mappings that are in memory."""
    here, found = False, 0
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split()[0] and not line.split()[0].endswith(":"):
            here = line.endswith(str(file))
        elif here and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def test_pages_are_unloaded_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    expected = np.random.default_rng(0).integers(0, 255, _SIZE, np.uint8)
    expected.tofile(file)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        array = np.frombuffer(mapped, np.uint8)
        np.testing.assert_array_equal(array, expected)
        assert _resident(file) == _SIZE
        assert release_mapped(file) == _SIZE
        assert _resident(file) == 0
        np.testing.assert_array_equal(array, expected)
        del array


def test_what_can_be_written_to_is_left_alone(tmp_path: Path) -> None:
    """A private mapping that has been changed would lose its changes."""
    file = tmp_path / "weights.safetensors"
    np.zeros(_SIZE, np.uint8).tofile(file)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[0] = 7
        assert release_mapped(file) == 0
        assert mapped[0] == 7


def test_files_that_are_not_mapped() -> None:
    assert release_mapped(Path("/nowhere")) == 0
    release_freed()


def test_freed_blocks_are_used_again() -> None:
    """Without it each of them is made of new pages."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        pytest.skip("this C library has no mallopt")
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

    def pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            block = libc.malloc(2 * _SIZE)
            ctypes.memset(block, 1, 2 * _SIZE)
            libc.free(block)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    outside = pages()
    with reused_memory():
        with reused_memory():
            pass
        inside = pages()
    assert inside < outside / 4
    assert pages() > outside / 2
