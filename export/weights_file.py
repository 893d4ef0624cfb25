"""A network's one weights file: the checkpoint's own where it fits, else streamed tensor by tensor."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from ..engines.errors import ExportError
from .checkpoint import DTYPES, CheckpointComponent, TensorSource
from .checkpoint.safetensors_header import read_header

__all__ = ["dtype_name", "external_tensors", "place_weights"]

_FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


LINK_FROM = 256 * 2**20
"""Bytes from which a file is linked rather than copied: onnx's checker refuses external data with more than one hard
link, and below this size a copy costs nothing."""


def place_weights(component: CheckpointComponent, target: Path, *, store: str | None, link: bool) -> bool:
    """Put a network's weights at ``target``.

    Args:
        component: the network.
        target: the ``.safetensors`` to make.
        store: element type to convert floats to (``F16``, ``BF16``), or None to keep them.
        link: make a hard link of a large file (:data:`LINK_FROM`) in which nothing needs to change.

    Returns:
        Whether the checkpoint's own file was linked, so that it takes no space.

    Raises:
        ExportError: a value is beyond the range of ``store``.

    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unchanged = all(_stored(tensor, store) == tensor.dtype for tensor in component.tensors.values())
    if component.file is not None and unchanged:
        source = component.file.resolve()
        if link and source.stat().st_size >= LINK_FROM:
            with contextlib.suppress(OSError):  # another file system, or one without hard links
                os.link(source, target)
                return True
        shutil.copyfile(source, target)
        return False
    _stream(component.tensors, target, store)
    return False


def _stored(tensor: TensorSource, store: str | None) -> str:
    return store if store and tensor.dtype in _FLOATS else tensor.dtype


def _stream(tensors: Mapping[str, TensorSource], target: Path, store: str | None) -> None:
    """Write the tensors one by one; at most one is in memory."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        dtype = _stored(tensor, store)
        size = math.prod(tensor.shape) * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in tensors.items():
            array = tensor.read()
            if _stored(tensor, store) != tensor.dtype:
                array = _converted(name, array, _stored(tensor, store))
            file.write(np.ascontiguousarray(array).view(np.uint8).data if array.ndim else array.tobytes())


def _converted(name: str, array: np.ndarray, store: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        converted = array.astype(DTYPES[store])
    if store == "F16" and not np.isfinite(converted).all() and np.isfinite(array).all():
        most = np.abs(array).max()
        raise ExportError(f"{name} holds {most:.3g}, which float16 cannot; export with --precision fp32 or bf16")
    return converted


def dtype_name(component: CheckpointComponent, store: str | None) -> str:
    """Return the element type the weights are stored in, by numpy's name, or ``mixed``."""
    kinds = {_stored(tensor, store) for tensor in component.tensors.values()}
    return _FLOATS.get(kinds.pop(), "mixed") if len(kinds) == 1 else "mixed"


def external_tensors(file: Path) -> dict[str, ir.ExternalTensor]:
    """Describe the tensors of a ``.safetensors`` as ONNX external data beside the graph; only the header is read."""
    tensors, _ = read_header(file)
    return {
        name: ir.ExternalTensor(
            location=file.name,
            offset=tensor.offset,
            length=tensor.nbytes,
            dtype=ir.DataType.from_numpy(DTYPES[tensor.dtype]),
            shape=ir.Shape(tensor.shape),
            name=name,
            base_dir=file.parent,
        )
        for name, tensor in tensors.items()
    }
