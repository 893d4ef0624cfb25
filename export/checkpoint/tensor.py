"""One tensor of a checkpoint file: where its bytes are, and how to read them."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import ml_dtypes
import numpy as np

from ...engines.errors import CheckpointError

__all__ = ["DTYPES", "TensorSource"]

DTYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "I16": np.dtype("<i2"),
    "U16": np.dtype("<u2"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "I64": np.dtype("<i8"),
    "U64": np.dtype("<u8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
"""Element types by safetensors' names (its format specification); all little-endian."""


@dataclass(frozen=True, kw_only=True)
class TensorSource:
    """A tensor that has not been read yet.

    Attributes:
        file: the file that holds it, a ``.safetensors`` or a zip archive of torch.
        name: its name inside that file.
        dtype: element type, one of :data:`DTYPES`.
        shape: of the tensor, which may be another view of the stored one.
        offset: first byte inside ``file``.
        nbytes: bytes from ``offset`` to the end of the last element.
        strides: distance between neighbours along each axis, in elements; None means row-major without gaps.

    """

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    strides: tuple[int, ...] | None = None

    @property
    def verbatim(self) -> bool:
        """Whether the ``nbytes`` bytes from ``offset`` are the tensor in this shape, so that they can be linked."""
        return self.strides is None

    def read(self) -> np.ndarray:
        """Map the tensor into memory, read-only; an unaligned one is copied.

        Raises:
            CheckpointError: the file is gone or shorter than it was when it was opened.

        """
        dtype = DTYPES[self.dtype]
        if self.nbytes == 0:
            return np.empty(self.shape, dtype)
        try:
            raw = np.asarray(np.memmap(self.file, np.uint8, mode="r", offset=self.offset, shape=(self.nbytes,)))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {self.name!r} of {self.file}: {error}") from error
        flat = raw.view(dtype)
        if not flat.flags.aligned:
            flat = flat.copy()
            flat.flags.writeable = False
        if self.strides is None:
            return flat.reshape(self.shape)
        steps = tuple(stride * dtype.itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False)

    def rows(self, start: int, stop: int) -> "TensorSource":
        """Return rows ``start`` to ``stop`` (exclusive) of the first axis."""
        if not self.verbatim or not self.shape or not 0 <= start <= stop <= self.shape[0]:
            raise ValueError(f"no rows {start} to {stop} of {self.name!r}, shape {list(self.shape)}")
        row = self.nbytes // self.shape[0] if self.shape[0] else 0
        return replace(
            self, shape=(stop - start, *self.shape[1:]), offset=self.offset + start * row, nbytes=(stop - start) * row
        )

    def reshaped(self, shape: tuple[int, ...]) -> "TensorSource":
        """Return the same elements in another shape; strided ones can only lose or gain axes of length one."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{self.name!r} of shape {list(self.shape)} cannot become {list(shape)}")
        if self.strides is None:
            return replace(self, shape=shape)
        longer = [(length, stride) for length, stride in zip(self.shape, self.strides, strict=True) if length != 1]
        if tuple(length for length, _ in longer) != tuple(length for length in shape if length != 1):
            raise ValueError(f"{self.name!r} is not stored row by row and cannot become {list(shape)}")
        steps = iter(longer)
        return replace(self, shape=shape, strides=tuple(next(steps)[1] if length != 1 else 1 for length in shape))

    def transposed(self) -> "TensorSource":
        """Return the matrix with its two axes exchanged."""
        if len(self.shape) != 2:
            raise ValueError(f"{self.name!r} of shape {list(self.shape)} is no matrix")
        strides = self.strides or (self.shape[1], 1)
        return replace(self, shape=self.shape[::-1], strides=strides[::-1])
