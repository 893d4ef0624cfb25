"""The tensors of a ``.safetensors`` file, as sources of a checkpoint's."""

from pathlib import Path

from ...engines.errors import CheckpointError
from ...engines.files import safetensors_header
from .tensor import TensorSource

__all__ = ["read_header"]


def read_header(file: Path) -> tuple[dict[str, TensorSource], dict[str, str]]:
    """Return the tensors of a file by name, none of them read, and its metadata.

    Raises:
        CheckpointError: the file cannot be read or its header is damaged.

    """
    try:
        with file.open("rb") as stream:
            stored, metadata = safetensors_header.read_header(file, stream)
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error
    tensors = {
        name: TensorSource(file=file, name=name, dtype=t.dtype, shape=t.shape, offset=t.offset, nbytes=t.nbytes)
        for name, t in stored.items()
    }
    return tensors, metadata
