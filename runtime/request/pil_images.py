"""Reads PIL images of any mode and depth, and turns them upright."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ...engines.errors import UsageError
from ...engines.files.regular_file import open_regular

__all__ = ["as_bytes", "open_image", "prepared_image", "turned_upright"]

_WHITES = {"I": (255, 65535, 2**31 - 1), "F": (1, 255, 65535)}
"""Values that white may have, in modes that do not define it; the smallest that no pixel exceeds is used."""


def open_image(path: Path, what: str, notes: list[str]) -> Image.Image:
    """Read a file as diffusers' ``load_image`` does, upright and as RGB; but with more than 8 bits as mode ``F``.

    Args:
        path: the file.
        what: the argument's name, for messages.
        notes: what the user should know about how the file was read is added to it.

    Raises:
        UsageError: the file cannot be read.

    """
    try:
        # From a path, Pillow maps uncompressed TIFF files into memory, and swaps height and width of rotated ones.
        with open_regular(path) as stream, Image.open(stream) as opened:
            frames = getattr(opened, "n_frames", 1)
            opened.load()
            upright = _upright(opened)
    except FileNotFoundError as error:
        raise UsageError(f"{what}: there is no file {path}") from error
    except UnidentifiedImageError as error:  # its text names the stream
        raise UsageError(f"{what}: {path} cannot be read as an image: it is of no kind that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{what}: {path} cannot be read as an image: {error}") from error
    if frames > 1 and opened.format != "MPO":  # the further images in a camera's MPO file are no frames
        notes.append(f"{what}: {path} has {frames} frames; the first is used")
    image = _with_known_depth(upright, what, notes)
    return image if image.mode == "F" else _converted(image, what)


def prepared_image(image: Image.Image, what: str, notes: list[str], *, on_white: bool = False) -> Image.Image:
    """Return a caller's image, upright and in a mode that can be resized: its own, or ``F`` with values of 0 to 1.

    As in diffusers' pipelines, the image is to be resized in its own mode, and converted to RGB afterwards. Unlike
    here, they ignore its EXIF orientation; an image that is rotated here gets a note.

    Args:
        image: of any mode.
        what: the argument's name, for messages.
        notes: what the user should know about how the image was read is added to it.
        on_white: whether a transparent image is put on white, as transformers does for image encoders; if not, its
            transparency has no effect.

    Raises:
        UsageError: its file is damaged, or its values are not finite or larger than any white of its mode.

    """
    try:
        image.load()
    except (AssertionError, AttributeError) as error:  # which of them, depends on Pillow's release
        raise UsageError(f"{what}: the image cannot be read: its file was closed before it was read") from error
    except (OSError, SyntaxError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise UsageError(f"{what}: the image cannot be read: {reason}") from error
    upright = turned_upright(image, what, notes)
    return _with_known_depth(_on_white(upright) if on_white and _transparent(upright) else upright, what, notes)


def as_bytes(image: Image.Image) -> Image.Image:
    """Return an image as it is, or, of mode ``F`` with values of 0 to 1, rounded to 8 bits."""
    if image.mode != "F":
        return image
    return Image.fromarray((np.asarray(image) * 255).round().astype(np.uint8))


def turned_upright(image: Image.Image, what: str, notes: list[str]) -> Image.Image:
    """Return an image as its EXIF orientation says; one that is turned gets a note."""
    upright = _upright(image)
    if upright is not image:
        notes.append(
            f"{what}: turned upright, as its EXIF orientation says (diffusers does that for files only); "
            "if that is wrong, delete the tag"
        )
    return upright


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # damaged EXIF raises many kinds of errors; the pixels are read all the same
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def _with_known_depth(image: Image.Image, what: str, notes: list[str]) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(image, what, notes)
    if _transparent(image):
        reading = "it is read as light and dark" if what == "mask_image" else "what lies beneath is seen"
        notes.append(f"{what}: its transparency has no effect; {reading}, as in diffusers")
    if "transparency" in image.info:  # with it, Pillow warns of the conversion that is meant here
        image = image.copy()
        del image.info["transparency"]
    return _converted(image, what) if image.mode in ("La", "LAB") else image


def _transparent(image: Image.Image) -> bool:
    if "transparency" in image.info and image.mode in ("1", "L", "P", "RGB"):
        return True
    if image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return False
    lowest, _ = image.getchannel(image.getbands()[-1]).getextrema()
    return isinstance(lowest, (int, float)) and lowest < 255


def _scaled(image: Image.Image, what: str, notes: list[str]) -> Image.Image:
    """Return an image of more than 8 bits as mode ``F`` with values of 0 to 1."""
    values = np.asarray(image, np.float64)
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise UsageError(f"{what}: an image of mode {image.mode} whose values are below 0 or not finite")
    most = values.max(initial=0)
    white = next((white for white in _WHITES.get(image.mode, (65535,)) if most <= white), None)
    if white is None:
        raise UsageError(f"{what}: an image of mode {image.mode} with values up to {most:g}: scale it to 0 to 1")
    if image.mode in _WHITES and white != 1:
        notes.append(f"{what}: an image of mode {image.mode}, read as values of 0 to {white}")
    return Image.fromarray((values / white).astype(np.float32))


def _converted(image: Image.Image, what: str) -> Image.Image:
    try:
        return (image.convert("LA") if image.mode == "La" else image).convert("RGB")
    except ValueError as error:
        raise UsageError(f"{what}: an image of mode {image.mode} cannot be used: {error}; convert it to RGB") from error
