"""A body's fields -> what to generate, and how to answer. OpenAI's fields, and beside them those of a request.

The latter are :class:`~sdengine.runtime.request.Request`'s: there is no second list of them here.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ...engines.errors import nearest
from ...engines.scalars import finite_number, shortened, whole_number
from ..request.argument import ANYTHING, CALLBACK, IMAGE, IMAGES, MIXED, TEXT, argument_of
from ..request.request import Request
from .api_error import ApiError
from .uploads import Upload, has_alpha, mask_from_alpha, opaque, opened, upload_from_text

__all__ = [
    "ALL_FIELDS",
    "LORAS_MOST",
    "OPENAI",
    "OWN",
    "PICTURES",
    "REQUEST",
    "STRENGTH_MOST",
    "Asked",
    "Limits",
    "asked_for",
]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for.

    Attributes:
        n: images.
        steps: steps of the solver, custom timesteps included.
        image_pixels: pixels of a picture that is sent.
        timeout: seconds until a request's time is over, waiting included.
        body: bytes of a request's body.
        body_timeout: seconds without a byte of a body that has begun.

    """

    n: int = 10
    steps: int = 200
    image_pixels: int = 2**24
    timeout: float = 600.0
    body: int = 64 * 2**20
    body_timeout: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a body asks for.

    Attributes:
        model: name, or None.
        settings: of the request, by :class:`~sdengine.runtime.request.Request`'s names.
        response_format: ``b64_json`` or ``url``.
        output_format: ``png``, ``jpeg`` or ``webp``.
        quality: of JPEG and WebP, 0 to 100.
        stream: whether events are asked for.
        partial_images: previews of each image.
        progress: whether events of steps are asked for, which OpenAI does not know.
        priority: lower is handled earlier.
        timeout: seconds.
        warnings: fields that have no effect, and how pictures were read.

    """

    model: str | None
    settings: dict[str, Any]
    response_format: str
    output_format: str
    quality: int
    stream: bool
    partial_images: int
    progress: bool
    priority: int
    timeout: float
    warnings: tuple[str, ...]


_ELSEWHERE = {
    "generator": "send seed",
    "callback_on_step_end": "stream, with partial_images or progress",
    "safety_checker": "the server decides: sdengine serve --no-safety-checker switches it off",
    "output_type": "the answer holds images; output_format is png, jpeg or webp",
    **dict.fromkeys(("images_and_prompts", "weights", "negative_prior_prompt"), "send prompt, or image_embeds"),
}
"""Fields of a request that mean nothing in a body, and what does."""
_KINDS = {field.name: argument_of(field).kind for field in dataclasses.fields(Request)}
_UNSENDABLE = {
    name: "it is for programs in Python"
    for name, kind in _KINDS.items()
    if kind in (ANYTHING, CALLBACK, MIXED) and name not in ("scheduler_config", "loras")
}
"""Of kinds that hold Python's objects, or texts that could name files."""
REQUEST = {f.name: f for f in dataclasses.fields(Request) if f.name not in _ELSEWHERE | _UNSENDABLE}
"""Fields of a request that a body may hold."""
_TEXTS = tuple(name for name in REQUEST if _KINDS[name] is TEXT)
PICTURES = tuple(name for name in REQUEST if _KINDS[name] in (IMAGE, IMAGES))
"""Those that are pictures."""
OPENAI = (
    "model",
    "prompt",
    "n",
    "size",
    "response_format",
    "output_format",
    "output_compression",
    "background",
    "stream",
    "partial_images",
    "mask",
)
"""OpenAI's fields that are obeyed."""
OWN = ("priority", "timeout", "progress")
"""Fields about how a request is served."""
_NO_EFFECT = ("quality", "style", "moderation", "user", "safety_identifier", "input_fidelity")
"""OpenAI's fields that have no meaning here, and that clients send all the same."""
_REFUSED = {
    "markup": "send mask, whose transparent pixels are repainted, or mask_image, whose white ones are",
    "svg": "images are of pixels; output_format is png, jpeg or webp",
    "complexity": "there is num_inference_steps",
    "frame_count": "images do not move",
    "frame_duration_ms": "images do not move",
    **_UNSENDABLE,
    **_ELSEWHERE,
}
ALL_FIELDS = (*dict.fromkeys((*OPENAI, *OWN, *REQUEST, *_NO_EFFECT, *_REFUSED)),)
"""All names that mean something, if only that they are refused."""

_FORMATS = ("png", "jpeg", "webp")
_PARTIAL_MOST = 3
_IN_PLACE_OF_PROMPT = ("prompt_embeds", "image_embeds")
_TEXT_MOST = 32_000
"""Characters of a text, as OpenAI's."""


def asked_for(body: Mapping[str, Any], limits: Limits) -> Asked:
    """Read the fields of a body.

    Args:
        body: JSON values, and :class:`.Upload` where a file was sent. None is: not given.
        limits: what may be asked for.

    Raises:
        ApiError: a field is unknown, refused, or out of its range.
        UsageError: the same, said by what reads the field.

    """
    fields = {name: value for name, value in body.items() if value is not None}
    for name in fields:
        if name in _REFUSED:
            raise _invalid(name, f"{name} is not supported: {_REFUSED[name]}", "unsupported_field")
        if name not in ALL_FIELDS:
            raise _invalid(name, f"unknown field {shortened(name)}{nearest(name, ALL_FIELDS)}", "unknown_field")
    warnings = [f"{name} has no effect here" for name in _NO_EFFECT if name in fields]
    stream = _flag(fields, "stream")
    progress, partial = _flag(fields, "progress"), whole_number("partial_images", fields.get("partial_images", 0))
    for name, asked in (("partial_images", partial), ("progress", progress)):
        if asked and not stream:
            raise _invalid(name, f"{name} needs stream: true")
    if not 0 <= partial <= _PARTIAL_MOST:
        raise _invalid("partial_images", f"partial_images={partial} is outside 0 to {_PARTIAL_MOST}")
    output_format = _one_of(fields, "output_format", _FORMATS)
    return Asked(
        model=_text(fields, "model"),
        settings=_settings(fields, limits, warnings),
        response_format=_one_of(fields, "response_format", ("b64_json", "url")),
        output_format=output_format,
        quality=_quality(fields, output_format),
        stream=stream,
        partial_images=partial,
        progress=progress,
        priority=whole_number("priority", fields.get("priority", 0), least=-1000, most=1000),
        timeout=_timeout(fields, limits),
        warnings=tuple(warnings),
    )


def _settings(fields: Mapping[str, Any], limits: Limits, warnings: list[str]) -> dict[str, Any]:
    """Return the request's own fields, OpenAI's names for some of them translated."""
    settings = {name: fields[name] for name in REQUEST if name in fields}
    prompt = fields.get("prompt")
    if prompt is None and not any(name in fields for name in _IN_PLACE_OF_PROMPT):
        raise _invalid("prompt", "prompt is missing: say what to generate", "missing_field")
    for name in _TEXTS:
        text = _text(fields, name)
        if text is not None and len(text) > _TEXT_MOST:
            raise _invalid(name, f"{name} has {len(text)} characters; {_TEXT_MOST} are the most", "too_long")
    for name, kind, what in (
        ("scheduler", str, "the name of a scheduler"),
        ("scheduler_config", Mapping, "an object of options"),
    ):
        if name in settings and not isinstance(settings[name], kind):
            raise _invalid(name, f"{name}={shortened(settings[name])} must be {what}")
    if "loras" in settings:
        settings["loras"] = _loras(settings["loras"])
    _same(settings, "num_images_per_prompt", "n", fields.get("n"))
    most = whole_number("n", settings.get("num_images_per_prompt", 1), least=1, most=limits.n)
    settings["num_images_per_prompt"] = most
    if isinstance(seeds := settings.get("seed"), (list, tuple)) and len(seeds) != most:
        if not seeds or "n" in fields or len(seeds) > limits.n:
            raise _invalid("seed", f"seed: {len(seeds)} given for {most} images")
        settings["num_images_per_prompt"] = len(seeds)
    for name, value in settings.items():
        if name.endswith("_steps") or name in ("timesteps", "sigmas"):
            steps = len(value) if isinstance(value, (list, tuple)) else value
            whole_number(name, steps, most=max(limits.steps, 1000) if name.startswith("original") else limits.steps)
    _size(fields, settings)
    _add_images(fields, settings, limits, warnings)
    return settings


def _loras(value: Any) -> list[tuple[str, float]]:
    """Read names of LoRAs, or pairs of one and its strength; whether there are such names is not known here."""
    sent = value if isinstance(value, list) else [value]
    if len(sent) > LORAS_MOST:
        raise _invalid("loras", f"loras: {len(sent)} were sent; {LORAS_MOST} are the most")
    loras = []
    for one in sent:
        name, *rest = one if isinstance(one, list) and len(one) in (1, 2) else [one]
        strength = finite_number("loras", rest[0]) if rest else 1.0
        if not isinstance(name, str) or abs(strength) > STRENGTH_MOST:
            raise _invalid("loras", f"loras: {shortened(one)} is no name, nor [name, strength up to {STRENGTH_MOST}]")
        loras.append((name, strength))
    return loras


LORAS_MOST = 8
STRENGTH_MOST = 10


def _size(fields: Mapping[str, Any], settings: dict[str, Any]) -> None:
    size = _text(fields, "size")
    if size is None or size == "auto":
        return
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", size)
    if match is None:
        raise _invalid(
            "size", f"size={shortened(size)} is neither auto nor WIDTHxHEIGHT, like 1024x768", "invalid_value"
        )
    _same(settings, "width", "size", int(match[1]))
    _same(settings, "height", "size", int(match[2]))


def _same(settings: dict[str, Any], name: str, other: str, value: Any) -> None:
    """Take a value by OpenAI's name for it, unless another was fields by ours."""
    if value is None:
        return
    if settings.setdefault(name, value) != value:
        message = f"{other} and {name} were both given, and differ: {shortened(value)} and {shortened(settings[name])}"
        raise _invalid(other, message)


def _add_images(fields: Mapping[str, Any], settings: dict[str, Any], limits: Limits, warnings: list[str]) -> None:
    """Decode the pictures; transparency becomes a mask."""

    def pictures(name: str) -> list[Image.Image]:
        sent = fields[name] if isinstance(fields[name], list) else [fields[name]]
        uploads = [one if isinstance(one, Upload) else upload_from_text(_as_text(name, one), name) for one in sent]
        if not uploads or len(uploads) > _PICTURES_MOST:
            raise _invalid(
                name, f"{name}: {len(uploads)} pictures; there may be 1 to {_PICTURES_MOST}", "invalid_value"
            )
        return [opened(upload, name, limits.image_pixels, warnings) for upload in uploads]

    if "mask" in fields and "mask_image" in fields:
        raise _invalid("mask", "mask and mask_image were both given: send one of them")
    for name in PICTURES:
        if name in fields:
            several = pictures(name)
            settings[name] = several[0] if len(several) == 1 else several
    image = settings.get("image")
    if isinstance(image, list):
        raise _invalid("image", f"image: {len(image)} pictures; these models start from one")
    if "mask" in fields:
        (mask, *more), masked = pictures("mask"), settings.get("image")
        if more or not has_alpha(mask):
            message = "mask needs an alpha channel, 0 where to repaint; send mask_image if it is white there instead"
            raise _invalid("mask", message)
        if masked is not None and masked.size != mask.size:
            message = (
                f"mask has {mask.width}x{mask.height} pixels and image {masked.width}x{masked.height}: must be equal"
            )
            raise _invalid("mask", message)
        settings["mask_image"] = mask_from_alpha(mask) or Image.new("L", mask.size)
        settings["image"] = masked if masked is None or not has_alpha(masked) else opaque(masked)
    elif image is not None and "mask_image" not in fields and (own := mask_from_alpha(image)) is not None:
        settings["mask_image"], settings["image"] = own, opaque(image)
        warnings.append("image: repainted where it is transparent, as no mask was sent")
    if settings.get("image") is None:
        settings.pop("image", None)


_PICTURES_MOST = 16


def _timeout(fields: Mapping[str, Any], limits: Limits) -> float:
    seconds = finite_number("timeout", fields.get("timeout", limits.timeout))
    if not 0 < seconds <= limits.timeout:
        raise _invalid(
            "timeout", f"timeout={seconds:g} must be above 0 and at most {limits.timeout:g} s", "invalid_value"
        )
    return seconds


def _quality(fields: Mapping[str, Any], output_format: str) -> int:
    quality = whole_number("output_compression", fields.get("output_compression", 100), least=0, most=100)
    if output_format == "png" and quality != 100:
        message = "output_compression is the quality of jpeg and webp; png loses nothing: leave it out"
        raise _invalid("output_compression", message)
    if fields.get("background", "auto") not in ("auto", "opaque"):
        raise _invalid("background", "background: images are opaque; send auto or opaque")
    return quality


def _flag(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise _invalid(name, f"{name}={shortened(value)} must be true or false")
    return value


def _one_of(fields: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = fields.get(name, known[0])
    if value not in known:
        message = f"{name}={shortened(value)} is none of {', '.join(known)}{nearest(value, known)}"
        raise _invalid(name, message)
    return str(value)


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    return _as_text(name, fields[name]) if name in fields else None


def _as_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _invalid(name, f"{name}={shortened(value)} must be text")
    return value


def _invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    return ApiError(400, message, param=param[:100], code=code)
