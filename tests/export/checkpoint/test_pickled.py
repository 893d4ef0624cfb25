import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.errors import CheckpointError
from sdengine.export.checkpoint.pickled import read_pickled


def _tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    base = torch.randn(6, 4)
    return {
        "plain": base,
        "half": torch.randn(3, 2).half(),
        "brain": torch.randn(5).bfloat16(),
        "ids": torch.arange(7),
        "part": base[2:5],
        "turned": base.T,
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(1.5),
    }


@pytest.mark.parametrize("nested", [False, True])
def test_every_tensor_reads_as_it_was_saved(tmp_path: Path, nested: bool) -> None:
    tensors = _tensors()
    content: dict[str, Any] = {"state_dict": tensors, "global_step": 875000} if nested else tensors
    torch.save(content, tmp_path / "x.ckpt")
    sources, facts = read_pickled(tmp_path / "x.ckpt")
    assert set(sources) == set(tensors)
    assert facts == ({"global_step": 875000} if nested else {})
    for name, tensor in tensors.items():
        read = sources[name].read()
        expected = tensor.detach()
        if expected.dtype == torch.bfloat16:
            assert sources[name].dtype == "BF16"
            expected, read = expected.float(), read.astype(np.float32)
        np.testing.assert_array_equal(read, expected.numpy())
        assert sources[name].verbatim == tensor.is_contiguous()


def test_a_state_dict_inside_a_state_dict(tmp_path: Path) -> None:
    torch.save({"state_dict": {"state_dict": {"a": torch.ones(2)}}}, tmp_path / "x.ckpt")
    assert set(read_pickled(tmp_path / "x.ckpt")[0]) == {"a"}


class _Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, zipped: bool) -> None:
    file, witness = tmp_path / "evil.ckpt", tmp_path / "witness"
    if zipped:
        torch.save({"state_dict": {"a": torch.ones(2)}, "callback": _Bomb(witness)}, file)
    else:
        file.write_bytes(pickle.dumps(_Bomb(witness)))
    with pytest.raises(CheckpointError, match=r"\.safetensors"):
        read_pickled(file)
    assert not witness.exists()


def test_torchs_old_format_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"before torch 1\.6"):
        read_pickled(tmp_path / "x.ckpt")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2000)}, tmp_path / "x.ckpt")
    with (
        zipfile.ZipFile(tmp_path / "x.ckpt") as old,
        zipfile.ZipFile(tmp_path / "y.ckpt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(CheckpointError, match="compressed"):
        read_pickled(tmp_path / "y.ckpt")


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_file_that_is_cut_off(tmp_path: Path, keep: float) -> None:
    torch.save(_tensors(), tmp_path / "x.ckpt")
    content = (tmp_path / "x.ckpt").read_bytes()
    (tmp_path / "x.ckpt").write_bytes(content[: int(keep if keep > 1 else keep * len(content))])
    with pytest.raises(CheckpointError, match=r"x\.ckpt"):
        read_pickled(tmp_path / "x.ckpt")


def test_something_else_than_tensors(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="holds a list"):
        read_pickled(tmp_path / "x.ckpt")
    for odd in (torch.ones(2, dtype=torch.complex64), torch.eye(2).to_sparse()):
        torch.save({"a": odd}, tmp_path / "x.ckpt")
        with pytest.raises(CheckpointError, match=r"'a' of .* is a torch\.(strided of torch\.complex64|sparse_coo)"):
            read_pickled(tmp_path / "x.ckpt")


def test_a_state_dict_that_contains_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": torch.ones(2)}
    content["state_dict"] = content
    torch.save(content, tmp_path / "x.ckpt")
    assert set(read_pickled(tmp_path / "x.ckpt")[0]) == {"a"}
