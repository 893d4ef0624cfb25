"""Image files, with the seed and the settings of the image inside.

A PNG carries two text chunks: ``parameters``, the line that AUTOMATIC1111's web UI writes and most viewers of
generated images read, and ``sdengine``, the whole record as JSON. JPEG and WebP carry the same two as EXIF
``UserComment`` and ``ImageDescription``.
"""

import io
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from ...engines.bundle.whole_file import write_whole
from ...engines.errors import SdengineError, UsageError, nearest

__all__ = [
    "ImageRecord",
    "check_destination",
    "check_writable",
    "encoded_image",
    "images_from_pixels",
    "parameters_line",
    "read_record",
    "save_image",
]

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

_PNG_LEVEL = 4
"""Of zlib: on images of this kind the usual 6 takes five times as long, and saves nothing."""

# EXIF 2.32, tables 3 and 7
_IMAGE_DESCRIPTION = 0x010E
_EXIF_BLOCK = 0x8769
_USER_COMMENT = 0x9286
_UNICODE = b"UNICODE\0"


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an image was generated.

    Attributes:
        prompt: the text; empty where embeddings replaced it.
        negative_prompt: the text, if there was one.
        seed: of this image's noise.
        width: in pixels.
        height: in pixels.
        settings: the request's other arguments that were set, by name; JSON values.
        engines: component -> engine that ran it.

    """

    prompt: str
    negative_prompt: str | None = None
    seed: int
    width: int
    height: int
    settings: dict[str, Any] = {}
    engines: dict[str, str] = {}


def images_from_pixels(pixels: NDArray[np.uint8]) -> list[Image.Image]:
    """Return N images from RGB pixels [N, height, width, 3]."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(f"pixels are uint8 [N, height, width, 3], not {pixels.dtype} {list(pixels.shape)}")
    return [Image.fromarray(image) for image in pixels]


def check_destination(path: str | Path) -> Path:
    """Return the path, after checking that an image can be written there.

    Raises:
        UsageError: the suffix is of no known format, or the folder cannot be made or written to.

    """
    file = Path(path)
    suffix = file.suffix.lower()
    if suffix not in _FORMATS:
        known = ", ".join(_FORMATS)
        wrong = f"unknown image format {suffix!r}" if suffix else "the name has no suffix for the format"
        raise UsageError(f"{file}: {wrong}{nearest(suffix, _FORMATS)} (known: {known})")
    return check_writable(file)


def check_writable(file: Path) -> Path:
    """Return the path, after checking that a file can be written there.

    Raises:
        UsageError: it is a folder or a device, its name is too long, its folder cannot be made or written to, or it is
            a link into a folder that is not there.

    """
    try:
        is_folder = file.is_dir()
    except OSError as error:  # the name is too long, for instance
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error
    if is_folder:
        raise UsageError(f"{file} is a folder; name a file in it")
    if file.exists() and not file.is_file():
        raise UsageError(f"{file} is no regular file and is not replaced; choose another name")
    if file.is_symlink():  # what it points to is written
        folder = Path(os.path.realpath(file)).parent
    else:
        folder = next((parent for parent in file.absolute().parents if parent.exists()), file.absolute())
    if not folder.is_dir():
        raise UsageError(f"{file}: {folder} is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{file}: the folder {folder} cannot be written to")
    return file


def save_image(image: Image.Image, path: str | Path, record: ImageRecord, *, quality: int = 95) -> None:
    """Write an image with its record; after an error nothing is left of the file.

    Args:
        image: RGB.
        path: the file; its suffix (.png, .jpg, .jpeg, .webp) says the format.
        record: how it was generated.
        quality: of JPEG and WebP, 1 to 100.

    Raises:
        UsageError: see :func:`check_destination`; or the record is too long for the format.
        SdengineError: the file could not be written, for instance because the disk is full.

    """
    file = check_destination(path)
    kind = _FORMATS[file.suffix.lower()]
    options = _options(kind, record, quality)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with write_whole(file) as aside, aside.open("wb") as stream:
            image.save(stream, kind, **options)
    except OSError as error:
        raise SdengineError(f"{file} could not be written: {error.strerror or error}") from error


def encoded_image(image: Image.Image, kind: str, record: ImageRecord | None, *, quality: int = 95) -> bytes:
    """Return the bytes of an image's file.

    Args:
        image: RGB.
        kind: ``png``, ``jpeg`` or ``webp``.
        record: how it was generated; None leaves it out.
        quality: of JPEG and WebP, 0 to 100.

    Raises:
        UsageError: the record is too long for the format.

    """
    stream = io.BytesIO()
    image.save(stream, kind.upper(), **_options(kind.upper(), record, quality))
    return stream.getvalue()


def _options(kind: str, record: ImageRecord | None, quality: int) -> dict[str, Any]:
    options: dict[str, Any] = {"compress_level": _PNG_LEVEL} if kind == "PNG" else {"quality": quality}
    if record is not None:
        options |= {"pnginfo": _text_chunks(record)} if kind == "PNG" else {"exif": _exif(record, kind)}
    return options


def read_record(path: str | Path) -> ImageRecord:
    """Read the record in an image file.

    Raises:
        UsageError: there is no such file, or it holds no record that sdengine wrote.

    """
    try:
        with Image.open(path) as image:
            text = image.text.get("sdengine") if isinstance(image, PngImagePlugin.PngImageFile) else None
            text = text or image.getexif().get(_IMAGE_DESCRIPTION)
    except FileNotFoundError as error:
        raise UsageError(f"there is no image {path}") from error
    except (UnidentifiedImageError, OSError) as error:
        raise UsageError(f"{path} is no image: {error}") from error
    try:
        return msgspec.json.decode(text or "", type=ImageRecord)
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} holds no record of the settings that made it") from error


def _text_chunks(record: ImageRecord) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", parameters_line(record).replace("\0", ""))  # a NUL would end the chunk's text
    chunks.add_text("sdengine", _json(record))
    return chunks


def _exif(record: ImageRecord, kind: str) -> bytes:
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = _json(record)
    exif.get_ifd(_EXIF_BLOCK)[_USER_COMMENT] = _UNICODE + parameters_line(record).encode("utf-16-be")
    data = exif.tobytes()
    if kind == "JPEG" and len(data) > 65_500:  # a JPEG segment counts its length in 16 bits
        raise UsageError("the settings, prompt included, are too long for a JPEG; write a PNG or WebP")
    return data


def _json(record: ImageRecord) -> str:
    return json.dumps(msgspec.to_builtins(record))


_SAMPLERS = {
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "KDPM2AncestralDiscreteScheduler": "DPM2 a",
    "KDPM2DiscreteScheduler": "DPM2",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}
_NAMES = {
    "num_inference_steps": "Steps",
    "scheduler": "Sampler",
    "guidance_scale": "CFG scale",
    "seed": "Seed",
    "size": "Size",
    "checkpoint": "Model",
    "strength": "Denoising strength",
    "clip_skip": "Clip skip",
}


def parameters_line(record: ImageRecord) -> str:
    """Write the record as AUTOMATIC1111's web UI does: the prompt, the negative prompt, then ``Name: value, ...``."""
    values: dict[str, Any] = {
        **record.settings,
        "seed": record.seed,
        "size": f"{record.width}x{record.height}",
    }
    if "scheduler" in values:
        values["scheduler"] = _SAMPLERS.get(values["scheduler"], values["scheduler"])
    if isinstance(values.get("clip_skip"), int):
        values["clip_skip"] += 1  # the web UI counts the last layer as 1
    order = [*(name for name in _NAMES if name in values), *(name for name in values if name not in _NAMES)]
    fields = ", ".join(f"{_NAMES.get(name, name)}: {_quoted(values[name])}" for name in order)
    negative = f"\nNegative prompt: {record.negative_prompt}" if record.negative_prompt else ""
    return f"{record.prompt}{negative}\n{fields}, Version: sdengine"


def _quoted(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return json.dumps(text) if any(mark in text for mark in ",:\n") else text
