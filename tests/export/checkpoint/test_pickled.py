import collections
import contextlib
import datetime
import importlib
import os
import pickle
import runpy
import shutil
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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


class _Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def _calls(witness: Path) -> list[Any]:
    text = f"open({str(witness)!r}, 'w')"
    return [
        _Call(os.system, f"touch {witness}"),
        _Call(subprocess.Popen, ["touch", str(witness)]),
        _Call(eval, text),
        _Call(exec, text),
        _Call(Path.touch, witness),
        _Call(importlib.import_module, "this"),
        _Call(shutil.rmtree, str(witness.parent)),
        _Call(runpy.run_path, str(witness)),
    ]


@pytest.mark.parametrize("protocol", range(1, 6))
@pytest.mark.parametrize("which", range(8))
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, which: int, protocol: int) -> None:
    file, witness = tmp_path / "evil.ckpt", tmp_path / "witness"
    call = _calls(witness)[which]
    torch.save({"state_dict": {"a": torch.ones(2)}, "callback": call}, file, pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match=r"could run code; nothing of it was run.*\.safetensors"):
        read_pickled(file)
    file.write_bytes(pickle.dumps(call, protocol=protocol))
    with pytest.raises(CheckpointError, match=r"was not written by torch\.save"):
        read_pickled(file)
    assert not witness.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", range(1, 6))
def test_a_checkpoint_of_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, zipped: bool
) -> None:
    """Callbacks, configs and optimisers of a training run; the packages that wrote them are not installed."""
    lightning = types.ModuleType("pytorch_lightning_of_2022")
    code = """
import collections, enum
class ModelCheckpoint:
    def __init__(self): self.best = 1.5
    def __reduce_ex__(self, protocol):
        assert not ran, "it was called"
        return (ModelCheckpoint, (), {"best": 1.5})
class Callback: pass
class AttributeDict(dict): pass
class Stage(enum.Enum): FIT = "fit"
ran = []
"""
    exec(code, lightning.__dict__)
    monkeypatch.setitem(sys.modules, lightning.__name__, lightning)
    tensors = _tensors()
    content = {
        "callbacks": {lightning.ModelCheckpoint: {"best": np.float64(0.25)}, "x": lightning.Callback()},
        "epoch": np.int64(6),
        "global_step": np.int32(875000),
        "loss": np.float32(0.5),
        "hparams": lightning.AttributeDict(lr=1e-4, where=Path("/somewhere"), when=datetime.datetime(2022, 8, 22)),
        "stage": lightning.Stage.FIT,
        "optimizer_states": [collections.defaultdict(dict, {0: {"step": 3}})],
        "numbers": np.arange(4),
        "checkpoint": lightning.ModelCheckpoint(),
        "state_dict": collections.OrderedDict(tensors),
    }
    torch.save(content, tmp_path / "x.ckpt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, lightning.__name__)
    lightning.__dict__["ran"].append("from now on")
    sources, facts = read_pickled(tmp_path / "x.ckpt")
    assert lightning.__name__ not in sys.modules
    assert facts == {"epoch": 6, "global_step": 875000, "loss": 0.5}
    assert set(sources) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(sources[name].read().astype(np.float32), tensor.detach().float().numpy())


def test_a_state_dict_of_another_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("some_trainer")
    exec("class Weights(dict): pass\nclass Network: pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "some_trainer", module)
    torch.save({"state_dict": module.Weights(_tensors())}, tmp_path / "x.ckpt")
    torch.save(module.Network(), tmp_path / "y.ckpt")
    monkeypatch.delitem(sys.modules, "some_trainer")
    assert set(read_pickled(tmp_path / "x.ckpt")[0]) == set(_tensors())
    with pytest.raises(CheckpointError, match=r"holds a some_trainer\.Network, not a state dict"):
        read_pickled(tmp_path / "y.ckpt")


@pytest.mark.parametrize("protocol", range(1, 6))
def test_torchs_old_format(tmp_path: Path, protocol: int) -> None:
    tensors = _tensors()
    content = {"state_dict": tensors, "global_step": 3}
    torch.save(content, tmp_path / "x.ckpt", pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    sources, facts = read_pickled(tmp_path / "x.ckpt")
    assert facts == {"global_step": 3}
    for name, tensor in torch.load(tmp_path / "x.ckpt", weights_only=False)["state_dict"].items():
        np.testing.assert_array_equal(sources[name].read().astype(np.float32), tensor.detach().float().numpy())
    whole = (tmp_path / "x.ckpt").read_bytes()
    for keep in (0.3, 0.8, 0.99):
        (tmp_path / "x.ckpt").write_bytes(whole[: int(keep * len(whole))])
        with pytest.raises(CheckpointError, match=r"x\.ckpt"):
            read_pickled(tmp_path / "x.ckpt")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255), zipped=st.booleans())
def test_no_other_error_whatever_is_damaged(tmp_path: Path, at: int, byte: int, zipped: bool) -> None:
    file = tmp_path / "x.ckpt"
    torch.save({"state_dict": _tensors(), "step": np.int64(1)}, file, _use_new_zipfile_serialization=zipped)
    content = bytearray(file.read_bytes())
    content[at % len(content)] = byte
    file.write_bytes(bytes(content))
    with contextlib.suppress(CheckpointError):
        for source in read_pickled(file)[0].values():
            source.read()


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
        with pytest.raises(CheckpointError, match=r"'a' of .* is (of type complex64|a sparse_tensor)"):
            read_pickled(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"a": torch.ones(2)}, "epoch": 3}, "only model, epoch: save the state dict alone"),
        (
            {"string_to_param": {"*": torch.ones(2)}, "name": "x"},
            "it is a textual inversion: give it to `sdengine run`",
        ),
        ({}, "only nothing"),
    ],
)
def test_a_file_without_tensors_at_its_top(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=message):
        read_pickled(tmp_path / "x.pt")


def test_a_state_dict_that_contains_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": torch.ones(2)}
    content["state_dict"] = content
    torch.save(content, tmp_path / "x.ckpt")
    assert set(read_pickled(tmp_path / "x.ckpt")[0]) == {"a"}
