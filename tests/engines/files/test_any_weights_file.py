"""Files of weights that anybody may have made: read whole, or refused with a CheckpointError; nothing in them runs."""

import io
import pickle
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from sdengine.engines.errors import CheckpointError
from sdengine.engines.files.floats import FLOATS
from sdengine.engines.files.stored_file import open_stored

from ...mutated import mutated


def _tensors() -> dict[str, torch.Tensor]:
    numbers = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(3, 5, generator=numbers),
        "a.bias": torch.randn(5, generator=numbers).half(),
        "b.weight": torch.randn(2, 3, generator=numbers).bfloat16().T,
        "b.alpha": torch.tensor(4.0),
    }


def _saved(content: object, *, zipped: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


class _Opens:
    """Where it is unpickled by Python, a file appears."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def _wholes(trap: Path) -> Mapping[str, bytes]:
    tensors = _tensors()
    arrays = {name: value.float().numpy().copy() for name, value in tensors.items()}
    nested = {"state_dict": tensors, "epoch": 3, "callbacks": {"a": [1, 2.0, "x"]}}
    return {
        "safetensors": safetensors.numpy.save(arrays, {"ss_network_module": "networks.lora"}),
        "zip": _saved(nested, zipped=True),
        "five pickles": _saved(nested, zipped=False),
        "a trap, zipped": _saved({**tensors, "x": _Opens(trap)}, zipped=True),
        "a trap": _saved({**tensors, "x": _Opens(trap)}, zipped=False),
        "a trap alone": pickle.dumps(_Opens(trap)),
    }


def _read_mutated(folder: Path, count: int, seed: int) -> None:
    numbers = random.Random(seed)
    trap = folder / "trap"
    wholes = _wholes(trap)
    read = dict.fromkeys(wholes, 0)
    for i in range(count):
        kind = list(wholes)[i % len(wholes)]
        file = folder / f"weights-{i}"  # a new name each, as files are mapped
        file.write_bytes(mutated(wholes[kind], numbers))
        try:
            stored = open_stored(file)
            for tensor in stored.tensors.values():
                if tensor.dtype in FLOATS:
                    values = stored.values(tensor)
                    assert values.dtype == np.float32
                    assert values.shape == tensor.shape
                    values.sum(dtype=np.float64)  # reads every element
            read[kind] += 1
        except CheckpointError as error:
            assert str(file) in str(error)  # noqa: PT017 - some are read, some are refused
        file.unlink()
        assert not trap.exists(), "a pickle was run"
    assert all(read[kind] for kind in ("safetensors", "zip", "five pickles")), read
    assert sum(read.values()) < count, "every file was read, however damaged"


def test_whole_files_are_read(tmp_path: Path) -> None:
    wholes = _wholes(tmp_path / "trap")
    for kind in ("safetensors", "zip", "five pickles"):
        file = tmp_path / "weights"
        file.write_bytes(wholes[kind])
        stored = open_stored(file)
        for name, value in _tensors().items():
            np.testing.assert_array_equal(stored.values(stored.tensors[name]), value.float().numpy())
        file.unlink()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # sums of what a changed byte made infinite
def test_mutated_weights_files(tmp_path: Path) -> None:
    _read_mutated(tmp_path, 300, seed=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_two_thousand_mutated_weights_files(tmp_path: Path) -> None:
    _read_mutated(tmp_path, 2000, seed=2)


def test_nothing_but_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "weights.ckpt"
    file.write_bytes(b"\r\n")
    with pytest.raises(CheckpointError, match="it is text"):
        open_stored(file)
