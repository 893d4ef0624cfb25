"""Reading the header of a ``.safetensors`` file, which may come from anywhere.

The format (https://github.com/huggingface/safetensors, "Format"): eight bytes with the length of the header, the
header as JSON, then the tensors' bytes without gaps. Everything the header says is checked against the file before
it is believed.
"""

import math
import os
from pathlib import Path
from typing import IO, Any, NoReturn

from ..errors import CheckpointError
from .file_kind import what_it_is
from .json_data import json_data
from .torch_file import ITEM_SIZES, StoredTensor

__all__ = ["MAX_HEADER_BYTES", "read_header"]

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library; the header of a full SDXL checkpoint has about 0.4 MB."""

_CUT_OFF = "it is cut off, download it again"


def read_header(file: Path, stream: IO[bytes]) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the tensors of a file by name, none of them read, and its metadata.

    Args:
        file: what it is called.
        stream: it, opened; it is read from its beginning.

    Raises:
        CheckpointError: the file cannot be read or its header is damaged.

    """
    try:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(min(length, MAX_HEADER_BYTES))
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    if length == 0 or length > min(size - 8, MAX_HEADER_BYTES):
        if not text.startswith(b"{"):
            raise CheckpointError(f"{file} is no .safetensors file: {what_it_is(file)}")
        _refuse(file, f"its header would be {length} bytes long, the file has {size}: {_CUT_OFF}")
    try:
        header = json_data(text)
    except ValueError as error:
        _refuse(file, f"its header is not JSON ({error})", error)
    if not isinstance(header, dict):
        _refuse(file, "its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(file, "its __metadata__ does not map strings to strings")
    start = 8 + length
    tensors = {name: _tensor(file, name, entry, start) for name, entry in header.items()}
    _check_ranges(file, tensors, start, size)
    return tensors, metadata


def _tensor(file: Path, name: str, entry: Any, start: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        numbers = [*shape, begin, end]
    except (KeyError, TypeError, ValueError) as error:
        _refuse(file, f"the entry of {name!r} has not the keys dtype, shape, data_offsets", error)
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        _refuse(file, f"{name!r} is of type {dtype!r}; known are {', '.join(ITEM_SIZES)}")
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        _refuse(file, f"{name!r} has the shape {list(shape)} and the offsets {[begin, end]}")
    if end - begin != math.prod(shape) * ITEM_SIZES[dtype]:
        _refuse(file, f"{name!r} of shape {list(shape)} and type {dtype} lies in {end - begin} bytes")
    return StoredTensor(dtype=dtype, shape=shape, strides=None, offset=start + begin, nbytes=end - begin)


def _check_ranges(file: Path, tensors: dict[str, StoredTensor], start: int, size: int) -> None:
    """The tensors must cover the rest of the file exactly, without gap or overlap."""
    position = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].nbytes)):
        if tensor.offset != position:
            _refuse(file, f"{name!r} starts at byte {tensor.offset}, the one before it ends at {position}")
        position += tensor.nbytes
    if position != size:
        what = _CUT_OFF if size < position else "something follows its tensors"
        _refuse(file, f"its tensors end at byte {position}, the file at {size}: {what}")


def _refuse(file: Path, why: str, cause: BaseException | None = None) -> NoReturn:
    raise CheckpointError(f"{file} is no intact .safetensors file: {why}") from cause
