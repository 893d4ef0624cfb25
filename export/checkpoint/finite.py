"""Checks that all weights are finite: one NaN makes every image black, and later its weight could not be found."""

import numpy as np

from ...engines.errors import CheckpointError
from .component import CheckpointComponent
from .tensor import TensorSource

__all__ = ["check_finite"]

# Element type: unsigned integers of the same size, and the bits of infinity. What is larger, but for the sign, is NaN.
_INFINITY: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),  # has a NaN and no infinity
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F32": (np.uint32, 0x7F800000),
    "F64": (np.uint64, 0x7FF0000000000000),
}
_CHUNK = 1 << 20  # elements; stays in the cache of a core


def check_finite(component: CheckpointComponent) -> None:
    """Read all weights of a network and check that each is a finite number.

    Raises:
        CheckpointError: one is NaN or infinite; the message names its tensor.

    """
    for name, tensor in component.tensors.items():
        count = _not_finite(tensor)
        if count:
            nan = bool(np.isnan(tensor.read().astype(np.float64)).any())
            stored = "" if tensor.name == name else f" (stored as {tensor.name!r})"
            raise CheckpointError(
                f"{component.name}: {name!r}{stored} of {tensor.file} holds {'NaN' if nan else 'infinity'} ({count} of "
                f"{int(np.prod(tensor.shape))} values), so that no image could be generated: the checkpoint is "
                "damaged; download it again or take another"
            )


def _not_finite(tensor: TensorSource) -> int:
    """Return how many values are NaN or infinite."""
    if tensor.dtype not in _INFINITY:
        return 0
    kind, infinity = _INFINITY[tensor.dtype]
    bits = np.ascontiguousarray(tensor.read()).reshape(-1).view(kind)
    without_sign = kind((1 << (8 * bits.itemsize - 1)) - 1)
    room = np.empty(min(_CHUNK, len(bits)), kind)
    count = 0
    for start in range(0, len(bits), _CHUNK):
        part = bits[start : start + _CHUNK]
        magnitude = np.bitwise_and(part, without_sign, out=room[: len(part)])
        if magnitude.max() >= infinity:
            count += int((magnitude >= infinity).sum())
    return count
