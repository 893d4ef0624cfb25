"""Reads the caller's images and masks, and resizes them to the generated size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engines.errors import UsageError
from .arrays import array_from, array_in_file, finite_array
from .pil_images import open_image, prepared_image

__all__ = [
    "InputImage",
    "array_from",
    "as_latents",
    "image_size_of",
    "load_images",
    "mask_array",
    "natural_size",
    "pixel_array",
]

F32 = NDArray[np.float32]
InputImage = Image.Image | F32
Resample = Literal["lanczos", "bicubic"]

_CHANNELS = (1, 3, 4)


def load_images(
    value: Any, what: str, notes: list[str], *, masks: bool = False, signed: bool = False, on_white: bool = False
) -> list[InputImage]:
    """Return a list of images: PIL images, or float32 arrays [H, W] or [H, W, C] of 0 to 1.

    Args:
        value: a PIL image, a path of an image or of a ``.npy`` file, an array, or a list of these. Tensors (objects
            with ``numpy()``) are [N, C, H, W].
        what: the argument's name, for messages.
        notes: what the user should know about how the images were read is added to it.
        masks: whether these are masks: an array of three axes is then [N, H, W], unless its last axis is channels
            (1, 3 or 4), and a tensor of three axes always is.
        signed: whether values down to -1 are allowed and stay as they are (a ControlNet's masked pixels).
        on_white: see :func:`~.pil_images.prepared_image`.

    Raises:
        UsageError: the value is none of these, or a file cannot be read.

    """
    if isinstance(value, (list, tuple)):
        if not value:
            raise UsageError(f"{what} is an empty list")
        lists = [load_images(item, what, notes, masks=masks, signed=signed, on_white=on_white) for item in value]
        return [image for images in lists for image in images]
    value = array_in_file(value)
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        raise UsageError(f"{what}: {value} is not fetched; give a file")
    if isinstance(value, Image.Image) and signed and value.mode == "F" and np.asarray(value).min(initial=0) < 0:
        value = np.asarray(value)  # as an image it would be resampled, which mixes masked pixels with others
    if isinstance(value, Image.Image):
        return [prepared_image(value, what, notes, on_white=on_white)]
    if isinstance(value, (str, Path)):
        return [open_image(Path(value), what, notes)]
    array = _plain_array(value, masks=masks)
    if array is None:
        raise UsageError(f"{what} must be a PIL image, a path or an array, not {type(value).__name__}")
    array = _checked_values(array, what, notes, masks=masks, signed=signed)
    is_batch = array.ndim == 4 or (masks and array.ndim == 3 and array.shape[-1] not in _CHANNELS)
    if (array.ndim == 4 or not is_batch) and array.ndim > 2 and array.shape[-1] not in _CHANNELS:
        raise UsageError(f"{what} has {array.shape[-1]} channels ({array.shape}): there can be 1, 3 or 4")
    if array.ndim > 2 and array.shape[-1] == 4 and not (masks and is_batch) and array[..., 3].min() < 1:
        notes.append(f"{what}: the fourth channel of the array, its transparency, has no effect")
    return list(array) if is_batch else [array]


def _checked_values(array: NDArray[Any], what: str, notes: list[str], *, masks: bool, signed: bool) -> F32:
    """Return an array's values as float32 of 0 to 1; unsigned integers are divided by their type's largest value.

    Raises:
        UsageError: the array has another type or number of axes, or values out of range.

    """
    if array.ndim not in (2, 3, 4) or not (array.dtype.kind in "bu" or np.issubdtype(array.dtype, np.floating)):
        raise UsageError(
            f"{what} must be floats of 0 to 1, or unsigned integers such as uint8, with 2 to 4 axes, "
            f"not {array.dtype} {array.shape}"
        )
    if array.size == 0:
        raise UsageError(f"{what} is empty: its shape is {array.shape}")
    white = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
    if masks and white > 1 and array.max() == 1:
        notes.append(f"{what}: whole numbers of 0 and 1 are read as black and white")
        white = 1
    values = np.asarray(array, np.float64) / white
    least, most = float(values.min()), float(values.max())
    below = least < -1e-6
    if not np.isfinite([least, most]).all() or most > 1 + 1e-6 or least < -1 - 1e-6 or (below and masks):
        raise UsageError(f"{what} holds values outside 0 to 1")
    if below and not signed:
        notes.append(f"{what}: an array with values below 0 is read as one of -1 to 1, as in diffusers")
        values = (values + 1) / 2
    return values.astype(np.float32)


def _plain_array(value: Any, *, masks: bool) -> NDArray[Any] | None:
    """Return a numpy array as it is, a tensor with its channels moved last, and None for other objects.

    Tensors are [N, C, H, W], [C, H, W] or, of masks, [N, H, W].
    """
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "numpy"):
        array = array_from(value)
        if masks and array.ndim == 3:
            return array[..., None]
        return np.moveaxis(array, -3, -1) if array.ndim in (3, 4) else array
    return None


def as_latents(value: Any, channels: int) -> F32 | None:
    """Return the value as float32 latents [N, C, h, w], or None if it has not that shape."""
    if isinstance(value, (list, tuple)) and value:
        items = [array_in_file(item) for item in value]
        parts = [as_latents(item[None] if getattr(item, "ndim", 0) == 3 else item, channels) for item in items]
        arrays = [part for part in parts if part is not None]
        return np.concatenate(arrays) if len(arrays) == len(parts) else None
    value = array_in_file(value)
    array = array_from(value) if hasattr(value, "numpy") else value
    if isinstance(array, np.ndarray) and array.ndim == 4 and array.shape[1] == channels and array.shape[-1] != 3:
        return np.ascontiguousarray(finite_array("image, as latents,", array))
    return None


def natural_size(image: InputImage, multiple: int) -> tuple[int, int]:
    """Return an image's (height, width), each rounded down to a multiple, as diffusers does."""
    height, width = image_size_of(image)
    return height - height % multiple, width - width % multiple


def image_size_of(image: InputImage) -> tuple[int, int]:
    """Return an image's (height, width)."""
    return (image.height, image.width) if isinstance(image, Image.Image) else image.shape[:2]


def pixel_array(images: Sequence[InputImage], height: int, width: int, *, resample: Resample = "lanczos") -> F32:
    """Return images as RGB, float32 [N, height, width, 3] of 0 to 1.

    As in diffusers, PIL images are resampled in their own mode, and arrays by nearest neighbour. A fourth channel of an
    array is dropped.
    """
    return np.stack([_resized(image, height, width, resample) for image in images])


def _resized(image: InputImage, height: int, width: int, resample: Resample) -> F32:
    if isinstance(image, Image.Image):
        return _scaled(image, height, width, "RGB", resample)
    pixels = _nearest(image, height, width)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    rgb = np.broadcast_to(pixels[:, :, :3], (height, width, 3))
    copied: F32 = np.array(rgb, np.float32)
    return copied


def _scaled(image: Image.Image, height: int, width: int, mode: str, resample: Resample = "lanczos") -> F32:
    """Resample a PIL image; return float32 of 0 to 1, [height, width, 3] for ``RGB``, [height, width] for ``L``."""
    if resample == "bicubic":  # with reducing_gap, Pillow may first halve the image, as in Kandinsky's pipelines
        scaled = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=1)
    else:
        scaled = image.resize((width, height), Image.Resampling.LANCZOS)
    if scaled.mode != "F":
        return np.asarray(scaled.convert(mode), np.float32) / np.float32(255)
    grey = np.clip(np.asarray(scaled, np.float32), 0, 1)
    return np.repeat(grey[:, :, None], 3, axis=-1) if mode == "RGB" else grey


def _nearest(array: F32, height: int, width: int) -> F32:
    return array[_nearest_indices(array.shape[0], height)][:, _nearest_indices(array.shape[1], width)]


def _nearest_indices(old: int, new: int) -> NDArray[np.int64]:
    """Return the index among ``old`` entries for each of ``new``, rounded in float32 as in torch's ``interpolate``."""
    if new == 2 * old:
        return np.arange(new) // 2
    scaled = np.floor(np.arange(new, dtype=np.float32) * np.float32(old / new))
    return np.asarray(np.minimum(scaled, old - 1), np.int64)


def mask_array(masks: Sequence[InputImage], height: int, width: int) -> F32:
    """Return masks, of any sizes, as float32 [N, height, width]: 1 (repainted) for values of at least 0.5, else 0."""
    arrays = []
    for mask in masks:
        if isinstance(mask, Image.Image):
            grey = _scaled(mask, height, width, "L")
        else:
            grey = _nearest(mask if mask.ndim == 2 else mask[..., :3].mean(-1), height, width)
        arrays.append((grey >= 0.5).astype(np.float32))
    return np.stack(arrays)
