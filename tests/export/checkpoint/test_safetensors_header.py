import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sdengine.engines.errors import CheckpointError
from sdengine.engines.files.safetensors_header import MAX_HEADER_BYTES
from sdengine.export.checkpoint.safetensors_header import read_header


def _write(file: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


def _entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_names_types_and_metadata(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 3), np.float16), "b": np.ones(4)}, tmp_path / "x.safetensors", {"k": "v"})
    tensors, metadata = read_header(tmp_path / "x.safetensors")
    assert metadata == {"k": "v"}
    assert {name: (t.dtype, t.shape, t.nbytes) for name, t in tensors.items()} == {
        "a": ("F16", (2, 3), 12),
        "b": ("F64", (4,), 32),
    }


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{", b"", "not JSON"),
        (b"\xff\xfe", b"", "not JSON"),
        (b"[" * 100_000, b"", "not JSON"),
        (b"[]", b"", "no JSON object"),
        (b'{"a": 1, "a": 2}', b"", "occurs twice"),
        ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
        ({"a": None}, b"", "'a' has not the keys"),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"", "'a' has not the keys"),
        ({"a": _entry(offsets=[0])}, bytes(8), "'a' has not the keys"),
        ({"a": _entry(shape=3)}, bytes(8), "'a' has not the keys"),
        ({"a": _entry(dtype="F4")}, bytes(8), "of type 'F4'; known are"),
        ({"a": _entry(dtype=["F32"])}, bytes(8), "of type"),
        ({"a": _entry(shape=[-2], offsets=[8, 0])}, bytes(8), "has the shape"),
        ({"a": _entry(shape=[2.0])}, bytes(8), "has the shape"),
        ({"a": _entry(shape=[True, 2])}, bytes(8), "has the shape"),
        ({"a": _entry(shape=[2**40, 2**40])}, bytes(8), "lies in 8 bytes"),
        ({"a": _entry(shape=[3])}, bytes(8), "lies in 8 bytes"),
        ({"a": _entry(offsets=[8, 0])}, bytes(8), "lies in -8 bytes"),
        ({"a": _entry()}, bytes(4), "cut off"),
        ({"a": _entry()}, bytes(12), "something follows"),
        ({"a": _entry(offsets=[4, 12])}, bytes(12), "starts at byte"),
        ({"a": _entry(), "b": _entry(offsets=[4, 12])}, bytes(12), "starts at byte"),
        ({"a": _entry(offsets=[2**62, 2**62 + 8])}, bytes(8), "starts at byte"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    file = _write(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"abc", r"it is text \('abc'\)"),
        ((2**63).to_bytes(8, "little") + b"{}", "its header would be 9223372036854775808 bytes long, the file has 10"),
        (b"\x03" + bytes(7) + b"{}", "its header would be 3 bytes long, the file has 10: it is cut off"),
    ],
)
def test_a_file_without_a_header(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_header(tmp_path / "bad.safetensors")


def test_a_header_larger_than_the_limit_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    with file.open("wb") as stream:
        stream.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{")
        stream.truncate(MAX_HEADER_BYTES + 100)  # a hole: takes no room on disk
    with pytest.raises(CheckpointError, match="its header would be"):
        read_header(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_header(tmp_path / "none.safetensors")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 200), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_no_other_error_whatever_is_damaged(tmp_path: Path, at: int, byte: int, cut: int) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"first": np.zeros((2, 3), np.float16), "second": np.ones(4)}, file, {"k": "v"})
    content = bytearray(file.read_bytes())
    content[at % len(content)] = byte
    file.write_bytes(bytes(content[: len(content) - cut]))
    try:
        tensors, _ = read_header(file)
    except CheckpointError:
        return
    for tensor in tensors.values():
        tensor.read()
