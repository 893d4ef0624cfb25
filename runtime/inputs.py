"""Pictures and masks that a caller brings, as arrays of the size that is drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..engines.errors import UsageError

__all__ = ["array_from", "as_latents", "load_pictures", "mask_array", "natural_size", "pixel_array"]

F32 = NDArray[np.float32]
Picture = Image.Image | F32


def load_pictures(value: Any, what: str, *, masks: bool = False) -> list[Picture]:
    """Return PIL images, or float32 arrays [H, W] or [H, W, C] of 0 to 1, one for each picture.

    Args:
        value: a PIL image, a path, an array, or a list of them. Tensors (anything with ``numpy()``) are [N, C, H, W].
        what: the argument's name, for messages.
        masks: three axes are [N, H, W], if the last is not of length 1.

    Raises:
        UsageError: it is none of these, or a file cannot be read.

    """
    if isinstance(value, (list, tuple)):
        if not value:
            raise UsageError(f"{what} is an empty list")
        return [picture for item in value for picture in load_pictures(item, what, masks=masks)]
    if isinstance(value, Image.Image):
        return [value]
    if isinstance(value, (str, Path)):
        return [_opened(Path(value), what)]
    array = _plain_array(value)
    if array is None:
        raise UsageError(f"{what} must be a PIL image, a path or an array, not {type(value).__name__}")
    if array.dtype == np.uint8:
        array = array.astype(np.float32) / 255
    if not np.issubdtype(array.dtype, np.floating) or array.ndim not in (2, 3, 4):
        raise UsageError(f"{what} must be floats of 0 to 1 or uint8, with 2 to 4 axes, not {array.dtype} {array.shape}")
    array = array.astype(np.float32)
    if not np.isfinite(array).all() or array.min() < -1e-6 or array.max() > 1 + 1e-6:
        raise UsageError(f"{what} holds values outside 0 to 1")
    several = array.ndim == 4 or (masks and array.ndim == 3 and array.shape[-1] != 1)
    return list(array) if several else [array]


def array_from(value: Any) -> NDArray[Any]:
    """Return an array, or a torch tensor wherever it is and whatever its float type, as an array."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def _plain_array(value: Any) -> NDArray[Any] | None:
    """A numpy array as it is; a tensor [N, C, H, W] or [C, H, W] with its channels moved last."""
    if isinstance(value, np.ndarray):
        return value
    if hasattr(value, "numpy"):
        array = array_from(value)
        return np.moveaxis(array, -3, -1) if array.ndim in (3, 4) else array
    return None


def _opened(path: Path, what: str) -> Image.Image:
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.copy()
    except FileNotFoundError as error:
        raise UsageError(f"{what}: there is no file {path}") from error
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UsageError(f"{what}: {path} cannot be read as a picture: {error}") from error


def as_latents(value: Any, channels: int) -> F32 | None:
    """Return the value as latents [N, C, h, w] if it is that, else None."""
    if isinstance(value, (list, tuple)) and value:
        parts = [as_latents(item[None] if getattr(item, "ndim", 0) == 3 else item, channels) for item in value]
        found = [part for part in parts if part is not None]
        return np.concatenate(found) if len(found) == len(parts) else None
    array = array_from(value) if hasattr(value, "numpy") else value
    if isinstance(array, np.ndarray) and array.ndim == 4 and array.shape[1] == channels and array.shape[-1] != 3:
        return np.ascontiguousarray(array, np.float32)
    return None


def natural_size(picture: Picture, multiple: int) -> tuple[int, int]:
    """Return a picture's (height, width), rounded down to a multiple as diffusers does."""
    height, width = _size(picture)
    return height - height % multiple, width - width % multiple


def _size(picture: Picture) -> tuple[int, int]:
    return (picture.height, picture.width) if isinstance(picture, Image.Image) else picture.shape[:2]


def pixel_array(pictures: Sequence[Picture], height: int, width: int) -> F32:
    """Return pictures as RGB, float32 [N, height, width, 3] of 0 to 1.

    As in diffusers, PIL images are resampled with Lanczos, in their own mode, and arrays by nearest neighbour.
    """
    return np.stack([_resized(picture, height, width) for picture in pictures])


def _resized(picture: Picture, height: int, width: int) -> F32:
    if isinstance(picture, Image.Image):
        scaled = picture.resize((width, height), Image.Resampling.LANCZOS).convert("RGB")
        return np.asarray(scaled, np.float32) / np.float32(255)
    pixels = _nearest(picture, height, width)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    rgb = np.broadcast_to(pixels[:, :, :3], (height, width, 3))
    copied: F32 = np.array(rgb, np.float32)
    return copied


def _nearest(array: F32, height: int, width: int) -> F32:
    return array[_nearest_indices(array.shape[0], height)][:, _nearest_indices(array.shape[1], width)]


def _nearest_indices(given: int, wanted: int) -> NDArray[np.int64]:
    """Which of ``given`` entries each of ``wanted`` is, rounded as torch's ``interpolate`` rounds: in float32."""
    if wanted == 2 * given:
        return np.arange(wanted) // 2
    scaled = np.floor(np.arange(wanted, dtype=np.float32) * np.float32(given / wanted))
    return np.asarray(np.minimum(scaled, given - 1), np.int64)


def mask_array(masks: Sequence[Picture], pictures: Sequence[Picture], height: int, width: int) -> F32:
    """Return masks as float32 [N, height, width], 0 or 1: from 0.5 on, a pixel is drawn anew.

    Args:
        masks: the masks.
        pictures: what they mask; none if that is given as latents.
        height: pixels.
        width: pixels.

    Raises:
        UsageError: a mask has another size than its picture.

    """
    found = []
    for i, mask in enumerate(masks):
        picture = pictures[i % len(pictures)] if pictures else mask
        if _size(mask) != _size(picture):
            wanted, given = _size(picture), _size(mask)
            raise UsageError(
                f"mask_image is {given[1]}x{given[0]} pixels, the image {wanted[1]}x{wanted[0]}: make them equal"
            )
        if isinstance(mask, Image.Image):
            scaled = mask.resize((width, height), Image.Resampling.LANCZOS).convert("L")
            grey = np.asarray(scaled, np.float32) / np.float32(255)
        else:
            grey = _nearest(mask if mask.ndim == 2 else mask.mean(-1), height, width)
        found.append((grey >= 0.5).astype(np.float32))
    return np.stack(found)
