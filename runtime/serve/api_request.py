"""A body's fields -> what to generate, and how to answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...engines.errors import nearest
from ...engines.scalars import finite_number, shortened, whole_number
from .body_fields import ALL_FIELDS, NO_EFFECT, REFUSED, REQUEST, TEXTS
from .field_values import choice_of, flag_of, invalid, text_of
from .limits import LORAS_MOST, STRENGTH_MOST, Limits
from .sent_images import add_images

__all__ = ["ApiRequest", "api_request_from"]

_FORMATS = ("png", "jpeg", "webp")
_PARTIAL_MOST = 3
_IN_PLACE_OF_PROMPT = ("prompt_embeds", "image_embeds")
_TEXT_MOST = 32_000
"""Characters of a text, as OpenAI's."""


@dataclass(frozen=True, kw_only=True)
class ApiRequest:
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


def api_request_from(body: Mapping[str, Any], limits: Limits) -> ApiRequest:
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
        if name in REFUSED:
            raise invalid(name, f"{name} is not supported: {REFUSED[name]}", "unsupported_field")
        if name not in ALL_FIELDS:
            raise invalid(name, f"unknown field {shortened(name)}{nearest(name, ALL_FIELDS)}", "unknown_field")
    warnings = [f"{name} has no effect here" for name in NO_EFFECT if name in fields]
    stream = flag_of(fields, "stream")
    progress, partial = flag_of(fields, "progress"), whole_number("partial_images", fields.get("partial_images", 0))
    for name, value in (("partial_images", partial), ("progress", progress)):
        if value and not stream:
            raise invalid(name, f"{name} needs stream: true")
    if not 0 <= partial <= _PARTIAL_MOST:
        raise invalid("partial_images", f"partial_images={partial} is outside 0 to {_PARTIAL_MOST}")
    output_format = choice_of(fields, "output_format", _FORMATS)
    return ApiRequest(
        model=text_of(fields, "model"),
        settings=_settings(fields, limits, warnings),
        response_format=choice_of(fields, "response_format", ("b64_json", "url")),
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
        raise invalid("prompt", "prompt is missing: say what to generate", "missing_field")
    for name in TEXTS:
        text = text_of(fields, name)
        if text is not None and len(text) > _TEXT_MOST:
            raise invalid(name, f"{name} has {len(text)} characters; {_TEXT_MOST} are the most", "too_long")
    for name, kind, what in (
        ("scheduler", str, "the name of a scheduler"),
        ("scheduler_config", Mapping, "an object of options"),
    ):
        if name in settings and not isinstance(settings[name], kind):
            raise invalid(name, f"{name}={shortened(settings[name])} must be {what}")
    if "loras" in settings:
        settings["loras"] = _loras(settings["loras"])
    _same(settings, "num_images_per_prompt", "n", fields.get("n"))
    most = whole_number("n", settings.get("num_images_per_prompt", 1), least=1, most=limits.n)
    settings["num_images_per_prompt"] = most
    if isinstance(seeds := settings.get("seed"), (list, tuple)) and len(seeds) != most:
        if not seeds or "n" in fields or len(seeds) > limits.n:
            raise invalid("seed", f"seed: {len(seeds)} given for {most} images")
        settings["num_images_per_prompt"] = len(seeds)
    for name, value in settings.items():
        listed = name in ("timesteps", "sigmas") and isinstance(value, (list, tuple))
        if name.endswith("_steps") or listed:
            steps = len(value) if listed else value
            whole_number(name, steps, most=max(limits.steps, 1000) if name.startswith("original") else limits.steps)
    _size(fields, settings)
    add_images(fields, settings, limits, warnings)
    return settings


def _loras(value: Any) -> list[tuple[str, float]]:
    """Read names of LoRAs, or pairs of one and its strength; whether there are such names is not known here."""
    sent = value if isinstance(value, list) else [value]
    if len(sent) > LORAS_MOST:
        raise invalid("loras", f"loras: {len(sent)} were sent; {LORAS_MOST} are the most")
    loras = []
    for one in sent:
        name, *rest = one if isinstance(one, list) and len(one) in (1, 2) else [one]
        strength = finite_number("loras", rest[0]) if rest else 1.0
        if not isinstance(name, str) or abs(strength) > STRENGTH_MOST:
            raise invalid("loras", f"loras: {shortened(one)} is no name, nor [name, strength up to {STRENGTH_MOST}]")
        loras.append((name, strength))
    return loras


def _size(fields: Mapping[str, Any], settings: dict[str, Any]) -> None:
    size = text_of(fields, "size")
    if size is None or size == "auto":
        return
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", size)
    if match is None:
        raise invalid("size", f"size={shortened(size)} is neither auto nor WIDTHxHEIGHT, like 1024x768")
    _same(settings, "width", "size", int(match[1]))
    _same(settings, "height", "size", int(match[2]))


def _same(settings: dict[str, Any], name: str, other: str, value: Any) -> None:
    """Take a value by OpenAI's name for it, unless another was fields by ours."""
    if value is None:
        return
    if settings.setdefault(name, value) != value:
        message = f"{other} and {name} were both given, and differ: {shortened(value)} and {shortened(settings[name])}"
        raise invalid(other, message)


def _timeout(fields: Mapping[str, Any], limits: Limits) -> float:
    seconds = finite_number("timeout", fields.get("timeout", limits.timeout))
    if not 0 < seconds <= limits.timeout:
        raise invalid("timeout", f"timeout={seconds:g} must be above 0 and at most {limits.timeout:g} s")
    return seconds


def _quality(fields: Mapping[str, Any], output_format: str) -> int:
    quality = whole_number("output_compression", fields.get("output_compression", 100), least=0, most=100)
    if output_format == "png" and quality != 100:
        message = "output_compression is the quality of jpeg and webp; png loses nothing: leave it out"
        raise invalid("output_compression", message)
    if fields.get("background", "auto") not in ("auto", "opaque"):
        raise invalid("background", "background: images are opaque; send auto or opaque")
    return quality
