"""A file that others write to while it is used gives what it held when it was opened, or an error."""

import gc
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sdengine.engines.errors import CheckpointError
from sdengine.engines.files.stored_file import open_stored

NUMBERS = np.arange(100_000, dtype=np.float32)


def _overwritten(file: Path) -> None:
    size = file.stat().st_size
    file.write_bytes(bytes(size))


CHANGES: dict[str, Callable[[Path], None]] = {
    "cut off": lambda file: os.truncate(file, 1000),
    "emptied": lambda file: os.truncate(file, 0),
    "of the same size": _overwritten,
    "longer": lambda file: os.truncate(file, file.stat().st_size + 1),
}


def _written(folder: Path, suffix: str) -> Path:
    file = folder / f"a{suffix}"
    if suffix == ".pt":
        torch.save({"a": torch.from_numpy(NUMBERS)}, file)
    else:
        save_file({"a": NUMBERS}, file)
    return file


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("change", CHANGES)
def test_written_to_after_it_was_opened(change: str, suffix: str, tmp_path: Path) -> None:
    file = _written(tmp_path, suffix)
    stored = open_stored(file)
    assert np.array_equal(stored.values(stored.tensors["a"]), NUMBERS)
    CHANGES[change](file)
    for read in (lambda: stored.values(stored.tensors["a"]), stored.held.sha256):
        with pytest.raises(CheckpointError, match="was changed while it was read"):
            read()


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_another_file_in_its_place(change: str, tmp_path: Path) -> None:
    file = _written(tmp_path, ".safetensors")
    before = hashlib.sha256(file.read_bytes()).hexdigest()
    stored = open_stored(file)
    if change == "removed":
        file.unlink()
    else:
        save_file({"a": NUMBERS + 1}, tmp_path / "b")
        os.replace(tmp_path / "b", file)
    assert np.array_equal(stored.values(stored.tensors["a"]), NUMBERS) and stored.held.sha256() == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are not listed here")
def test_it_is_closed_when_nothing_uses_it(tmp_path: Path) -> None:
    file = _written(tmp_path, ".safetensors")
    stored = open_stored(file)
    descriptor = Path(f"/proc/self/fd/{stored.held.stream.fileno()}")
    assert descriptor.resolve() == file.resolve()
    del stored
    gc.collect()
    assert not descriptor.exists() or descriptor.resolve() != file.resolve()
