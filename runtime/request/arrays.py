"""Reads the caller's arrays: numpy's, torch's or lists, of real and finite numbers."""

import io
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from ...engines.files.regular_file import open_regular

__all__ = ["array_from", "array_in_file", "finite_array", "joined_array"]


def array_from(value: Any) -> NDArray[Any]:
    """Return an array, or a torch tensor on any device and of any type, as a numpy array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def finite_array(name: str, value: Any, *, ndim: Collection[int] = ()) -> NDArray[np.float32]:
    """Return real numbers as float32.

    Args:
        name: the argument's name, for messages.
        value: an array, a torch tensor, or lists of numbers.
        ndim: the numbers of axes that it may have; empty allows any.

    Raises:
        UsageError: it is no array of real numbers, is empty, has another number of axes, or holds NaN, infinity or a
            number that float32 cannot hold.

    """
    try:
        array = array_from(value)
    except Exception as error:  # of any library's arrays
        raise UsageError(f"{name} is no array of numbers: {error}") from error
    if array.dtype.kind not in "fiu" and not np.issubdtype(array.dtype, np.floating):
        raise UsageError(f"{name} must be an array of real numbers, not of {array.dtype}")
    if array.size == 0 or (ndim and array.ndim not in ndim):
        needed = f"{' or '.join(map(str, ndim))} axes" if ndim else "at least one number"
        raise UsageError(f"{name} has shape {list(array.shape)}; it needs {needed}")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32, copy=False)
    if not np.isfinite(numbers).all():
        raise UsageError(f"{name} holds NaN, infinity or numbers beyond float32; every number must be finite")
    return numbers


def joined_array(name: str, value: Any, *, ndim: Collection[int] = ()) -> NDArray[np.float32]:
    """Return an array, or a list of several joined along their first axis, as diffusers joins embeddings.

    Raises:
        UsageError: see :func:`finite_array`; or the shapes behind the first axis differ.

    """
    if not (isinstance(value, (list, tuple)) and value and all(getattr(item, "ndim", 0) in ndim for item in value)):
        return finite_array(name, value, ndim=ndim)
    arrays = [finite_array(name, item, ndim=ndim) for item in value]
    if len({array.shape[1:] for array in arrays}) > 1:
        shapes = ", ".join(str(list(array.shape)) for array in arrays)
        raise UsageError(f"{name}: the arrays of a list are joined along their first axis, and these differ: {shapes}")
    return np.concatenate(arrays)


def array_in_file(value: Any) -> Any:
    """Return the array in a ``.npy`` file, if ``value`` is the path of one; any other value is returned as it is.

    Raises:
        UsageError: there is no such file, or it holds no plain array.

    """
    if not isinstance(value, (str, Path)) or Path(value).suffix.lower() != ".npy":
        return value
    try:
        with open_regular(value) as stream:
            return np.load(io.BytesIO(stream.read()), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{value} cannot be read as an array: {error}") from error
