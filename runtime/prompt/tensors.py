"""Small files of tensors from outside, ``.safetensors`` or of ``torch.save``, as float32 arrays; without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from ...engines.errors import CheckpointError, UsageError
from ...engines.files.file_kind import starts_as_safetensors
from ...engines.files.floats import FLOATS, float32_from

__all__ = ["read_content", "read_tensors"]

_LARGEST = 1 << 30
_DEEPEST = 4  # AUTOMATIC1111's web UI needs two levels; a pickle can contain itself


def read_tensors(path: str | Path, what: str) -> dict[str, NDArray[np.float32]]:
    """Read all tensors of a file, by name.

    Args:
        path: the file.
        what: what it should hold, for messages.

    Raises:
        UsageError: there is no such file, it is of another kind, or holds something other than finite floats.

    """
    content = read_content(path, what)
    if not isinstance(content, Mapping) or not all(isinstance(value, np.ndarray) for value in content.values()):
        raise UsageError(f"{what}: {path} should hold tensors by name")
    return {str(name): value for name, value in content.items()}


def read_content(path: str | Path, what: str) -> Any:
    """Read what a file holds: arrays by name, or for one of ``torch.save`` any object with arrays in it.

    Nothing in a pickle is imported or called (:mod:`sdengine.engines.files.torch_file`).

    Raises:
        UsageError: as for :func:`read_tensors`.

    """
    file = Path(path)
    if not file.is_file():
        raise UsageError(f"{what}: there is no file {file}")
    if file.stat().st_size > _LARGEST:
        raise UsageError(f"{what}: {file} has {file.stat().st_size >> 20} MiB, too large for what it should be")
    try:
        with file.open("rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise UsageError(f"{what}: cannot read {file}: {error.strerror}") from error
    content = _from_safetensors(file, what) if starts_as_safetensors(head) else _from_torch(file, what)
    if isinstance(content, Mapping) and not content:
        raise UsageError(f"{what}: {file} holds no tensors")
    return content


def _from_safetensors(file: Path, what: str) -> dict[str, NDArray[np.float32]]:
    try:
        entries: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(file.read_bytes())  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise UsageError(f"{what}: {file} is no intact .safetensors file: {error}; download it again") from error
    tensors = {}
    for name, entry in sorted(entries, key=lambda entry: entry[0]):  # the library's order is that of a hash table
        where = f"{what}: {name!r} in {file}"
        tensors[name] = _array(where, entry["dtype"], entry["data"]).reshape(entry["shape"])
    return tensors


def _from_torch(file: Path, what: str) -> Any:
    from ...engines.files.torch_file import read_torch_file

    try:
        content = read_torch_file(file)
    except CheckpointError as error:
        raise UsageError(f"{what}: {error}") from error
    return _loaded(content, file.read_bytes(), f"{what}: {file}", 0)


def _loaded(content: Any, data: bytes, where: str, depth: int) -> Any:
    """Put arrays in the place of stored tensors; mappings of any class become dicts."""
    from ...engines.files.torch_file import StoredTensor, mapping_in

    if isinstance(content, StoredTensor) and depth > 1 and content.dtype not in FLOATS:
        return content  # the web UI notes down token ids beside the vectors
    if isinstance(content, StoredTensor):
        part = data[content.offset : content.offset + content.nbytes]
        flat = _array(where, content.dtype, part)
        if content.strides is None:
            return flat.reshape(content.shape)
        steps = [stride * flat.itemsize for stride in content.strides]
        return np.array(np.lib.stride_tricks.as_strided(flat, content.shape, steps, writeable=False))
    mapping = mapping_in(content)
    if mapping is not None and depth < _DEEPEST:
        return {name: _loaded(value, data, where, depth + 1) for name, value in mapping.items()}
    return content


def _array(where: str, dtype: str, data: bytes) -> NDArray[np.float32]:
    """Return the elements in a row."""
    if dtype not in FLOATS:
        raise UsageError(f"{where} is of type {dtype}; it should be one of {', '.join(FLOATS)}")
    values = float32_from(dtype, np.frombuffer(data, FLOATS[dtype]))
    if not np.isfinite(values).all():
        raise UsageError(f"{where} holds NaN or infinity")
    return np.ascontiguousarray(values)
