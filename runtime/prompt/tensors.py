"""Small ``.safetensors`` files from outside, as float32 arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray

from ...engines.errors import UsageError

__all__ = ["read_tensors"]

_PICKLES = {".bin", ".pt", ".pth", ".ckpt"}
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_LARGEST = 1 << 30


def read_tensors(path: str | Path, what: str) -> dict[str, NDArray[np.float32]]:
    """Read all tensors of a file.

    Args:
        path: the file.
        what: what it should hold, for messages.

    Raises:
        UsageError: there is no such file, it is no ``.safetensors`` file, or holds something other than finite floats.

    """
    file = Path(path)
    if file.suffix.lower() in _PICKLES:
        raise UsageError(
            f"{file} is a pickle, which can run code when it is opened; convert it where torch is installed: "
            "safetensors.torch.save_file(tensors, 'file.safetensors')"
        )
    if not file.is_file():
        raise UsageError(f"{what}: there is no file {file}")
    if file.stat().st_size > _LARGEST:
        raise UsageError(f"{what}: {file} has {file.stat().st_size >> 20} MiB, too large for what it should be")
    try:
        entries: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(file.read_bytes())  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise UsageError(f"{what}: {file} is no .safetensors file: {error}") from error
    if not entries:
        raise UsageError(f"{what}: {file} holds no tensors")
    return {name: _array(f"{what}: {name!r} in {file}", entry) for name, entry in entries}


def _array(where: str, entry: dict[str, Any]) -> NDArray[np.float32]:
    dtype, data = str(entry["dtype"]), entry["data"]
    if dtype not in _DTYPES:
        raise UsageError(f"{where} is of type {dtype}; it should be one of {', '.join(_DTYPES)}")
    raw = np.frombuffer(data, _DTYPES[dtype]).reshape(entry["shape"])
    # the bits of a bfloat16 are the upper half of a float32's
    values = (raw.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else raw.astype(np.float32)
    if not np.isfinite(values).all():
        raise UsageError(f"{where} holds NaN or infinity")
    return np.ascontiguousarray(values)
