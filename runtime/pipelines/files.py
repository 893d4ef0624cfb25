"""What guides use beside pipelines: ``load_image`` and ``make_image_grid``, without diffusers."""

import io
import os
from collections.abc import Callable, Sequence
from typing import Any

from ...engines.errors import UsageError

__all__ = ["load_image", "make_image_grid"]

_LONGEST = 2**26  # bytes of a picture
_SECONDS = 60


def load_image(image: Any, convert_method: Callable[[Any], Any] | None = None) -> Any:
    """Return a PIL image: upright, as RGB.

    Args:
        image: a path, an ``http(s)`` address, or a PIL image.
        convert_method: what turns the picture into the one that is wanted, in place of RGB.

    Raises:
        UsageError: there is no such picture.

    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        if isinstance(image, Image.Image):
            picture = image
        elif isinstance(image, str) and image.startswith(("http://", "https://")):
            picture = Image.open(io.BytesIO(_fetched(image)))
        elif isinstance(image, (str, os.PathLike)):
            picture = Image.open(image)
        else:
            raise UsageError(f"load_image takes a path, an address or a PIL image, not {type(image).__name__}")
        upright = ImageOps.exif_transpose(picture)
    except (OSError, UnidentifiedImageError) as error:
        raise UsageError(f"{image} cannot be read as a picture: {error}") from error
    return upright.convert("RGB") if convert_method is None else convert_method(upright)


def _fetched(address: str) -> bytes:
    from urllib.request import urlopen

    with urlopen(address, timeout=_SECONDS) as answer:
        content: bytes = answer.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise UsageError(f"{address} is larger than {_LONGEST >> 20} MiB")
    return content


def make_image_grid(images: Sequence[Any], rows: int, cols: int, resize: int | None = None) -> Any:
    """Return one picture of several, row by row.

    Args:
        images: PIL images of one size.
        rows: how many rows.
        cols: how many columns.
        resize: side in pixels that each is scaled to, or None.

    Raises:
        UsageError: there are more or fewer than fit.

    """
    from PIL import Image

    if len(images) != rows * cols:
        raise UsageError(f"{len(images)} images for {rows} rows of {cols}")
    scaled = [image if resize is None else image.resize((resize, resize)) for image in images]
    width, height = scaled[0].size
    grid = Image.new("RGB", (cols * width, rows * height))
    for i, image in enumerate(scaled):
        grid.paste(image, (i % cols * width, i // cols * height))
    return grid
