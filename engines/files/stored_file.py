"""A file of tensors, ``.safetensors`` or of ``torch.save``: names and shapes at once, values on demand."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .file_kind import starts_as_safetensors, what_it_is
from .floats import FLOATS, float32_from
from .torch_file import StoredTensor, mapping_in, read_torch_file

__all__ = ["StoredFile", "open_stored"]

_DEEPEST = 3  # state dicts inside state dicts


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file of tensors.

    Attributes:
        path: the file.
        tensors: the place of each in the file, by name.
        metadata: of the header of a ``.safetensors``; empty for others.

    """

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]

    def renamed(self, prefix: str) -> "StoredFile":
        """Return the same with something before all names."""
        return replace(self, tensors={prefix + name: tensor for name, tensor in self.tensors.items()})

    def values(self, tensor: StoredTensor) -> NDArray[np.float32]:
        """Read a tensor as float32; one that is stored so may be a view of the file.

        Raises:
            CheckpointError: it holds no floats, or the file has become shorter.

        """
        kind = FLOATS.get(tensor.dtype) or _INTEGERS.get(tensor.dtype)
        if kind is None:
            raise CheckpointError(f"{self.path} holds a tensor of type {tensor.dtype}; known are {', '.join(FLOATS)}")
        try:
            raw = self._bytes[tensor.offset : tensor.offset + tensor.nbytes]
            if len(raw) != tensor.nbytes:
                raise ValueError("it has become shorter")
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {self.path}: {error}") from error
        bits = np.frombuffer(raw.tobytes(), kind) if tensor.offset % np.dtype(kind).itemsize else raw.view(kind)
        if tensor.strides is not None:
            steps = [stride * bits.itemsize for stride in tensor.strides]
            bits = np.lib.stride_tricks.as_strided(bits, tensor.shape, steps, writeable=False)
        values = float32_from(tensor.dtype, np.ascontiguousarray(bits).reshape(-1))
        return values.reshape(tensor.shape)

    @functools.cached_property
    def _bytes(self) -> NDArray[np.uint8]:
        return np.asarray(np.memmap(self.path, np.uint8, mode="r"))


_INTEGERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}
"""Some tools write scalars (``alpha``, ``on_input``) so."""


def open_stored(path: Path) -> StoredFile:
    """Open a file of tensors by what it holds, whatever its name; nothing of a pickle is run.

    Raises:
        CheckpointError: there is no such file, or it is damaged or of another kind.

    """
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    return _from_safetensors(path) if starts_as_safetensors(head) else _from_torch(path)


def _from_safetensors(path: Path) -> StoredFile:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="np") as opened:  # checks sizes and offsets against the file
            metadata = dict(opened.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no intact .safetensors file: {error}; download it again") from error
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = StoredTensor(
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            strides=None,
            offset=8 + length + begin,
            nbytes=end - begin,
        )
    return StoredFile(path=path, tensors=tensors, metadata=metadata)


def _from_torch(path: Path) -> StoredFile:
    content = mapping_in(read_torch_file(path))
    for _ in range(_DEEPEST):
        inner = None if content is None else mapping_in(content.get("state_dict"))
        if inner is None:
            break
        content = inner
    tensors = {str(name): value for name, value in (content or {}).items() if isinstance(value, StoredTensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors by name: {what_it_is(path)}")
    return StoredFile(path=path, tensors=tensors, metadata={})
