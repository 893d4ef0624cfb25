"""Reading ``.ckpt`` and ``.bin`` files without running what is in them.

Only ``torch.load(weights_only=True)`` is used, onto the ``meta`` device: it interprets the pickle, notes for each
tensor where its bytes lie in the zip archive, and reads none of them.
"""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...engines.errors import CheckpointError
from .tensor import DTYPES, TensorSource

__all__ = ["read_pickled"]

_NESTED = 4  # state dicts inside state dicts; a pickle can even contain itself
_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
}


def read_pickled(file: Path) -> tuple[dict[str, TensorSource], dict[str, object]]:
    """Return the tensors of a file by name, none of them read, and the numbers beside them (``global_step``).

    Where there is a ``state_dict``, as Lightning writes it, the tensors are those inside it.

    Raises:
        CheckpointError: the file needs more than plain tensors to be unpickled, is of torch's old format, or damaged.

    """
    import torch

    _check_archive(file)
    try:
        content: Any = torch.load(file, map_location="meta", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{file} holds more than tensors and was not loaded, because unpickling could run code in it; "
            "save its state dict as .safetensors where you trust it"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged: {_first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file} holds a {type(content).__name__}, not a state dict")
    facts: dict[str, object] = {}
    for _ in range(_NESTED):
        facts |= {name: value for name, value in content.items() if isinstance(value, (int, float, str))}
        if not isinstance(content.get("state_dict"), Mapping):
            break
        content = content["state_dict"]
    size = file.stat().st_size
    return {name: _source(file, name, tensor, size) for name, tensor in _tensors(content)}, facts


def _check_archive(file: Path) -> None:
    """Offsets into the archive stand for bytes only where it is a zip file with nothing compressed in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            order = [archive.read(entry) for entry in entries if entry.filename.endswith("/byteorder")]
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{file} is no zip archive of torch.save: it is damaged, or was written before torch 1.6; "
            "save its state dict as .safetensors"
        ) from error
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{file} was compressed after torch.save; save its state dict as .safetensors")
    if order and order[0].strip() != b"little":
        raise CheckpointError(f"{file} is big-endian; save its state dict as .safetensors")


def _tensors(content: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    import torch

    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            yield str(name), value


def _source(file: Path, name: str, tensor: Any, size: int) -> TensorSource:
    dtype = _NAMES.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None or str(tensor.layout) != "torch.strided":
        known = ", ".join(_NAMES)
        raise CheckpointError(
            f"{name!r} of {file} is a {tensor.layout} of {tensor.dtype}; known are dense ones of {known}"
        )
    itemsize = DTYPES[dtype].itemsize
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    span = sum((length - 1) * stride for length, stride in steps) + 1 if tensor.numel() else 0
    offset = tensor.untyped_storage()._checkpoint_offset + tensor.storage_offset() * itemsize
    if offset + span * itemsize > size:
        raise CheckpointError(
            f"{file} is damaged: {name!r} ends at byte {offset + span * itemsize}, the file at {size}"
        )
    return TensorSource(
        file=file,
        name=name,
        dtype=dtype,
        shape=tuple(tensor.shape),
        offset=offset,
        nbytes=span * itemsize,
        strides=None if tensor.is_contiguous() else tuple(tensor.stride()),
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
