"""Reading what ``torch.save`` wrote (``.ckpt``, ``.bin``, ``.pt``, ``.pth``), without torch and without running it.

The object in the file is interpreted as data (:mod:`.pickle_data`): for each tensor it says where its bytes are in the
file, and none of them are read. Objects of other classes become a :class:`~.pickle_data.Instance`.

Two formats (``torch/serialization.py``): a zip archive with ``data.pkl`` and one entry per storage (torch 1.6 and
later), and before that five pickles in a row, followed by the storages.
"""

import io
import math
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..errors import CheckpointError
from .file_kind import starts_as_safetensors, what_it_is
from .pickle_data import Global, Instance, PickleError, read_pickle

__all__ = ["ITEM_SIZES", "TORCH_SUFFIXES", "StoredTensor", "mapping_in", "read_torch_file"]

TORCH_SUFFIXES = (".ckpt", ".bin", ".pt", ".pth", ".pti")

ITEM_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8,
    "F8_E4M3": 1, "F8_E5M2": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8,
}  # fmt: skip
"""Bytes of an element, by safetensors' names of the types."""

_STORAGES = {
    "BoolStorage": "BOOL", "ByteStorage": "U8", "CharStorage": "I8", "ShortStorage": "I16", "IntStorage": "I32",
    "LongStorage": "I64", "HalfStorage": "F16", "BFloat16Storage": "BF16", "FloatStorage": "F32",
    "DoubleStorage": "F64", "UntypedStorage": "U8", "_UntypedStorage": "U8", "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128", "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
}  # fmt: skip
_TYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float16": "F16",
    "bfloat16": "BF16", "float32": "F32", "float64": "F64",
}  # fmt: skip
_OTHER_SIZES = {"complex64": 8, "complex128": 16, "qint8": 1, "quint8": 1, "qint32": 4}
_LARGEST_PICKLE = 256 * 2**20  # that of a full SDXL checkpoint has 0.3 MB; optimiser states are larger
_MAGIC = 0x1950A86A20F9469CFC6C
_PARAMETER_DICT = "torch.nn.modules.container.ParameterDict"
_MAX_AXES = 64
_NUMBER = re.compile("b1|[iu][1248]|f[248]")
_ADVICE = "save its state dict as .safetensors where you trust it"


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor in a file that was not read.

    Attributes:
        dtype: element type, one of :data:`ITEM_SIZES`, or torch's name of another.
        shape: its dimensions.
        strides: distance between neighbours along each axis, in elements; None means row-major without gaps.
        offset: first byte inside the file.
        nbytes: bytes from ``offset`` to the end of the last element.

    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    offset: int
    nbytes: int


@dataclass(frozen=True)
class _Storage:
    dtype: str
    start: int
    nbytes: int


@dataclass
class _Unplaced:
    """A storage of the old format, whose place is known only once the pickle before it has been read."""

    dtype: str
    key: str
    count: int


def mapping_in(content: object) -> Mapping[Any, Any] | None:
    """Return the mapping that an object of a file is, whichever class it had, or None."""
    if isinstance(content, Instance):
        # torch.nn.ParameterDict is no dict: it is restored from the state of a module.
        state = content.state if isinstance(content.state, Mapping) else {}
        return content.entries or (state.get("_parameters") if str(content.kind) == _PARAMETER_DICT else None)
    return content if isinstance(content, Mapping) else None


def read_torch_file(file: Path) -> Any:
    """Return the object in the file; its tensors are :class:`StoredTensor`.

    Raises:
        CheckpointError: the file cannot be read, is of another kind, is damaged, or its pickle would run code.

    """
    try:
        with file.open("rb") as stream:
            start = stream.read(16)
            stream.seek(0)
            if starts_as_safetensors(start):
                raise CheckpointError(f"{file} was not written by torch.save: {what_it_is(file)}")
            if start.startswith(b"PK\x03\x04"):
                return _from_archive(file, stream)
            if start.startswith((b"\x80", b"L1195")):  # the magic number, in a protocol that has text only
                return _from_pickles(file, stream)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{file} was not written by torch.save: {what_it_is(file)}") from error
    except (ValueError, TypeError, struct.error, EOFError, RuntimeError) as error:
        raise CheckpointError(
            f"{file} cannot be read as a file of torch.save: {error}. {_ADVICE.capitalize()}"
        ) from error
    raise CheckpointError(f"{file} was not written by torch.save: {what_it_is(file)}")


def _from_archive(file: Path, stream: IO[bytes]) -> Any:
    with zipfile.ZipFile(stream) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise CheckpointError(f"{file} was compressed after torch.save; {_ADVICE}")
        pickles = [name for name in entries if name.endswith("data.pkl") and name.count("/") <= 1]
        if not pickles:
            raise CheckpointError(f"{file} was not written by torch.save: {what_it_is(file)}")
        name = pickles[0]
        root = name.removesuffix("data.pkl")
        order = entries.get(f"{root}byteorder")
        if order is not None and (order.file_size > 16 or archive.read(order).strip() != b"little"):
            raise CheckpointError(f"{file} is big-endian; {_ADVICE}")
        if entries[name].file_size > _LARGEST_PICKLE:
            raise CheckpointError(f"{file} holds a pickle of {entries[name].file_size >> 20} MiB; {_ADVICE}")
        content = archive.read(name)

    def storage(dtype: str, key: str, _: int) -> _Storage:
        entry = entries.get(f"{root}data/{key}")
        if entry is None:
            raise PickleError(f"it is damaged, its storage {key} is missing")
        return _Storage(dtype, _data_start(stream, entry), entry.file_size)

    return read_pickle(io.BytesIO(content), persistent=_persistent(storage), meaning=_meaning)


def _data_start(stream: IO[bytes], entry: zipfile.ZipInfo) -> int:
    """Return where an entry's bytes start: behind its local header (APPNOTE.TXT, 4.3.7)."""
    stream.seek(entry.header_offset)
    header = stream.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04"):
        raise PickleError("it is damaged, an entry of its archive is not where it should be")
    name, extra = struct.unpack_from("<HH", header, 26)
    return entry.header_offset + len(header) + int(name) + int(extra)


class _Bounded:
    """A stream that never allocates more than a pickle's size, whatever lengths a damaged one claims."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.tell = stream.tell

    def read(self, size: int, /) -> bytes:
        return self.stream.read(min(size, _LARGEST_PICKLE))

    def readline(self) -> bytes:
        return self.stream.readline(_LARGEST_PICKLE)


def _from_pickles(file: Path, whole: IO[bytes]) -> Any:
    stream = _Bounded(whole)
    unplaced: dict[str, _Unplaced] = {}

    def storage(dtype: str, key: str, count: int) -> _Unplaced:
        return unplaced.setdefault(key, _Unplaced(dtype, key, count))

    persistent = _persistent(storage)
    try:
        magic = read_pickle(stream, persistent=persistent, meaning=_meaning)
    except PickleError as error:
        raise CheckpointError(f"{file} was not written by torch.save: {error}. {_ADVICE.capitalize()}") from error
    if magic != _MAGIC:
        raise CheckpointError(f"{file} was not written by torch.save: it is a plain Python pickle; {_ADVICE}")
    _version, system = (read_pickle(stream, persistent=persistent, meaning=_meaning) for _ in range(2))
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise CheckpointError(f"{file} is big-endian; {_ADVICE}")
    tensors: list[tuple[Instance, tuple[Any, ...]]] = []

    def meaning(kind: Global, arguments: tuple[Any, ...]) -> Any:
        if arguments and isinstance(arguments[0], _Unplaced):
            tensors.append((Instance(kind, arguments), arguments))
            return tensors[-1][0]
        return _meaning(kind, arguments)

    content = read_pickle(stream, persistent=persistent, meaning=meaning)
    keys = read_pickle(stream, persistent=persistent, meaning=_meaning)
    places: dict[str, _Storage] = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        place = unplaced.get(str(key))
        if place is None or count < 0:
            raise PickleError(f"it is damaged, its storage {key} has no place")
        size = count * _size(place.dtype)
        places[place.key] = _Storage(place.dtype, stream.tell(), size)
        whole.seek(size, io.SEEK_CUR)
    end = whole.seek(0, io.SEEK_END)
    if any(place.start + place.nbytes > end for place in places.values()):
        raise PickleError("it is cut off; download it again")
    placed: dict[int, Any] = {
        id(instance): _meaning(instance.kind, (places[arguments[0].key], *arguments[1:]))
        for instance, arguments in tensors
        if isinstance(instance.kind, Global) and arguments[0].key in places
    }
    return _replaced(content, placed)


def _replaced(content: Any, placed: Mapping[int, Any]) -> Any:
    """Put the tensors in, whose places were not known before; a container may contain itself."""
    seen: set[int] = set()

    def walk(value: Any) -> Any:
        if id(value) in placed:
            return placed[id(value)]
        if id(value) in seen:
            return value
        seen.add(id(value))
        inner = value.entries if isinstance(value, Instance) else value
        if isinstance(inner, dict):
            inner.update({key: walk(item) for key, item in inner.items()})
        elif isinstance(inner, list):
            inner[:] = [walk(item) for item in inner]
        elif isinstance(inner, tuple):
            return tuple(walk(item) for item in inner)
        return value

    return walk(content)


def _persistent(storage: Callable[[str, str, int], Any]) -> Callable[[Any], Any]:
    """Return what reads torch's ids of storages: ``("storage", class, key, device, elements, ...)``."""

    def read(identity: Any) -> Any:
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise PickleError(f"it is damaged, {identity!r} is no storage")
        _, kind, key, _device, count = identity[:5]
        dtype = _STORAGES.get(kind.name) if isinstance(kind, Global) and kind.module.startswith("torch") else None
        if dtype is None or type(count) is not int:
            raise PickleError(f"its storages of {kind} are not known")
        return storage(dtype, str(key), count)

    return read


def _meaning(kind: Global, arguments: tuple[Any, ...]) -> Any:
    """Return what a call of torch, numpy or Python stands for as data."""
    rebuild = _CALLS.get(str(kind))
    return NotImplemented if rebuild is None else rebuild(*arguments)


def _tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> StoredTensor:
    return _view(storage, None, offset, shape, strides)


def _typed_tensor(
    storage: Any, offset: int, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> Any:
    named = dtype.name if isinstance(dtype, Global) else str(dtype)
    return _view(storage, _TYPES.get(named, named), offset, shape, strides)


def _view(storage: Any, dtype: str | None, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    if not isinstance(storage, _Storage):
        raise PickleError("it is damaged, a tensor has no storage")
    numbers = (offset, *shape, *strides)
    if (
        len(shape) != len(strides)
        or len(shape) > _MAX_AXES
        or not all(type(n) is int and 0 <= n < 2**48 for n in numbers)
    ):
        raise PickleError(f"it is damaged, a tensor has the shape {shape} and the strides {strides}")
    kind = dtype or storage.dtype
    size = _size(kind)
    span = (
        sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) + 1 if math.prod(shape) else 0
    )
    if (offset + span) * size > storage.nbytes:
        raise PickleError(f"it is damaged, a tensor of shape {tuple(shape)} is larger than its storage")
    return StoredTensor(
        dtype=kind,
        shape=tuple(shape),
        strides=None if _row_major(tuple(shape), tuple(strides)) else tuple(strides),
        offset=storage.start + offset * size,
        nbytes=span * size,
    )


def _size(dtype: str) -> int:
    return ITEM_SIZES.get(dtype) or _OTHER_SIZES.get(dtype, 1)


def _row_major(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length != 1 and stride != expected:
            return math.prod(shape) == 0
        expected *= length
    return True


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _unwrapped(_function: Any, _kind: Any, arguments: Any, *_: Any) -> Any:
    """A tensor of a subclass: ``_rebuild_from_type_v2(function, class, arguments, state)``."""
    return _meaning(_function, tuple(arguments)) if isinstance(_function, Global) else NotImplemented


def _mapping(*arguments: Any) -> Any:
    content = arguments[-1] if arguments else {}
    return dict(content) if isinstance(content, (Mapping, list)) else {}


def _encoded(text: Any, encoding: Any = "latin1") -> Any:
    """Protocol 2 has no bytes: they are the characters of a text."""
    return text.encode("latin1") if isinstance(text, str) and encoding in ("latin1", "latin-1") else NotImplemented


def _reconstructed(kind: Any, base: Any, state: Any = None) -> Any:
    """Objects of protocols 0 and 1; those of a subclass of dict bring its contents."""
    instance = Instance(kind, ())
    if isinstance(base, Global) and base.name == "dict" and isinstance(state, Mapping):
        instance.entries.update(state)
    return instance


def _numpy_scalar(dtype: Any, data: Any = None, *_: Any) -> Any:
    """``scalar(dtype, bytes)``, where the type is ``dtype("f8", False, True)`` with its byte order in the state."""
    if not isinstance(dtype, Instance) or not dtype.args or not isinstance(data, bytes):
        return NotImplemented
    code, state = dtype.args[0], dtype.state
    order = ">" if isinstance(state, tuple) and state[1:2] == (">",) else "<"
    if not isinstance(code, str) or not _NUMBER.fullmatch(code) or len(data) != np.dtype(code).itemsize:
        return NotImplemented
    return np.frombuffer(data, order + code)[0].item()


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _unwrapped,
    "torch.Size": lambda sizes=(): tuple(sizes),
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "collections.Counter": _mapping,
    "_codecs.encode": _encoded,
    "copyreg._reconstructor": _reconstructed,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray.scalar": _numpy_scalar,
}
