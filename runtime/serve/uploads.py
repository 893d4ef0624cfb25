"""Images that clients send: as files, data URLs or base64; looked at before they are decoded."""

import base64
import binascii
import io
from dataclasses import dataclass

from PIL import Image, ImageChops

from ...engines.errors import UsageError
from ..request.pil_images import prepared_image, turned_upright

__all__ = ["Upload", "has_alpha", "mask_from_alpha", "opaque", "opened", "upload_from_text"]

_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True)
class Upload:
    """A file that a client has sent, as it came."""

    data: bytes


def upload_from_text(text: str, what: str) -> Upload:
    """Read a data URL, or base64.

    Args:
        text: as sent.
        what: the field's name.

    Raises:
        UsageError: it is neither; other URLs and paths are not opened.

    """
    start, comma, rest = text.partition(",")
    if start.startswith("data:") and comma:
        if not start.endswith(";base64"):
            raise UsageError(f"{what}: a data URL must be base64, like data:image/png;base64,...")
        text = rest
    elif "://" in text[:16]:
        raise UsageError(f"{what}: URLs are not fetched; send the picture itself, as a data URL or base64")
    try:
        return Upload(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"{what} is neither a file, nor a data URL, nor base64: {error}") from error


def opened(upload: Upload, what: str, most_pixels: int, notes: list[str]) -> Image.Image:
    """Decode a picture.

    Args:
        upload: the file.
        what: the field's name.
        most_pixels: pixels that it may have; looked up in its header before it is decoded.
        notes: gets what the client should know about how it was read.

    Raises:
        UsageError: it is no PNG, JPEG or WebP, is damaged or too large.

    """
    if not upload.data:
        raise UsageError(f"{what} is an empty file")
    try:
        image = Image.open(io.BytesIO(upload.data), formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise UsageError(f"{what} has too many pixels; {most_pixels} are the most that are taken here") from error
    except Exception as error:  # of any decoder
        raise UsageError(f"{what} cannot be read as one of {', '.join(_FORMATS)}") from error
    width, height = image.size
    if width * height > most_pixels:
        raise UsageError(f"{what} has {width}x{height} pixels; {most_pixels} are the most that are taken here")
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"{what} has several frames; the first is used")
    try:
        image.load()
    except Exception as error:  # of any decoder
        raise UsageError(f"{what} is damaged: {error}") from error
    if _alpha(image) is None:
        return prepared_image(image, what, notes)
    return turned_upright(image, what, notes)


def mask_from_alpha(image: Image.Image) -> Image.Image | None:
    """Return a mask that is white where an image is transparent; None where it has no transparent pixel."""
    alpha = _alpha(image)
    if alpha is None or alpha.getextrema() == (255, 255):
        return None
    return ImageChops.invert(alpha)


def opaque(image: Image.Image) -> Image.Image:
    """Return an image without its transparency: what lies beneath."""
    return image.convert("RGBA").convert("RGB")


def _alpha(image: Image.Image) -> Image.Image | None:
    if image.mode in ("RGBA", "LA", "PA"):
        return image.getchannel("A")
    return image.convert("RGBA").getchannel("A") if "transparency" in image.info else None


def has_alpha(image: Image.Image) -> bool:
    """Whether an image says of its pixels how transparent they are."""
    return _alpha(image) is not None
