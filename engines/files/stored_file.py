"""A file of tensors, ``.safetensors`` or of ``torch.save``: names and shapes at once, values on demand."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError
from .file_kind import starts_as_safetensors, what_it_is
from .floats import FLOATS, float32_from
from .held_file import HeldFile
from .safetensors_header import read_header
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
        held: the file, opened.
        mapped: whether values may be views of the mapped file: only for files that nobody writes to.

    """

    path: Path
    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]
    held: HeldFile
    mapped: bool = False

    def renamed(self, prefix: str) -> "StoredFile":
        """Return the same with something before all names."""
        return replace(self, tensors={prefix + name: tensor for name, tensor in self.tensors.items()})

    def values(self, tensor: StoredTensor) -> NDArray[np.float32]:
        """Read a tensor as float32.

        Raises:
            CheckpointError: it holds no floats, or the file has changed.

        """
        kind = FLOATS.get(tensor.dtype) or _INTEGERS.get(tensor.dtype)
        if kind is None:
            raise CheckpointError(f"{self.path} holds a tensor of type {tensor.dtype}; known are {', '.join(FLOATS)}")
        if self.mapped:
            raw = self._bytes[tensor.offset : tensor.offset + tensor.nbytes]
        else:
            raw = self.held.read(tensor.offset, tensor.nbytes)
        aligned = not self.mapped or tensor.offset % np.dtype(kind).itemsize == 0
        bits = raw.view(kind) if aligned else np.frombuffer(raw.tobytes(), kind)
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


def open_stored(path: Path, *, mapped: bool = False) -> StoredFile:
    """Open a file of tensors by what it holds, whatever its name; nothing of a pickle is run.

    Args:
        path: the file.
        mapped: see :class:`StoredFile`.

    Raises:
        CheckpointError: there is no such file, or it is damaged or of another kind.

    """
    try:
        held = HeldFile(path)
        head = held.stream.read(9)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    try:
        tensors, metadata = read_header(path, held.stream) if starts_as_safetensors(head) else (_from_torch(path), {})
    finally:
        held.check(by_name=True)  # else what is wrong with it is not its own
    return StoredFile(path=path, tensors=tensors, metadata=metadata, held=held, mapped=mapped)


def _from_torch(path: Path) -> dict[str, StoredTensor]:
    content = mapping_in(read_torch_file(path))
    for _ in range(_DEEPEST):
        inner = None if content is None else mapping_in(content.get("state_dict"))
        if inner is None:
            break
        content = inner
    tensors = {str(name): value for name, value in (content or {}).items() if isinstance(value, StoredTensor)}
    if not tensors:
        raise CheckpointError(f"{path} holds no tensors by name: {what_it_is(path)}")
    return tensors
