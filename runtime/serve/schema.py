"""JSON schemas of the fields of a body, for the API's description and for reading forms."""

from collections.abc import Mapping
from typing import Any

from ..request.argument import FLAG, IMAGE, IMAGES, PAIR, SERIES, Kind, argument_of
from .body_fields import OPENAI, OWN, REQUEST
from .limits import Limits

__all__ = ["body_schema", "error_schema", "field_schemas", "is_text"]

_TEXT = {"type": "string"}
_PICTURE = {"type": "string", "description": "A data URL or base64 of a PNG, JPEG or WebP; in a form, a file."}


def field_schemas(limits: Limits) -> dict[str, dict[str, Any]]:
    """Return the schema of each field that is obeyed, by name; every one may also be null."""
    own: dict[str, dict[str, Any]] = {
        "model": _TEXT,
        "prompt": {"type": "string", "maxLength": 32_000},
        "n": {"type": "integer", "minimum": 1, "maximum": limits.n, "default": 1},
        "size": {"type": "string", "pattern": "^(auto|[0-9]{1,6}x[0-9]{1,6})$", "default": "auto"},
        "response_format": {"type": "string", "enum": ["b64_json", "url"], "default": "b64_json"},
        "output_format": {"type": "string", "enum": ["png", "jpeg", "webp"], "default": "png"},
        "output_compression": {"type": "integer", "minimum": 0, "maximum": 100, "default": 100},
        "background": {"type": "string", "enum": ["auto", "opaque"], "default": "auto"},
        "stream": {"type": "boolean", "default": False},
        "partial_images": {"type": "integer", "minimum": 0, "maximum": 3, "default": 0},
        "mask": {**_PICTURE, "description": "Repainted where its alpha is 0. " + _PICTURE["description"]},
        "priority": {"type": "integer", "minimum": -1000, "maximum": 1000, "default": 0},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": limits.timeout},
        "progress": {"type": "boolean", "default": False},
        "scheduler_config": {"type": "object"},
        "cross_attention_kwargs": {"type": "object"},
        "loras": {"type": "array", "maxItems": 8, "items": {"anyOf": [_TEXT, {"type": "array"}]}},
    }
    own["num_inference_steps"] = {"type": "integer", "minimum": 1, "maximum": limits.steps}
    schemas = {}
    for name in dict.fromkeys((*OPENAI, *OWN, *REQUEST)):
        declared = argument_of(REQUEST[name]) if name in REQUEST else None
        schema = own[name] if name in own or declared is None else _schema(declared.kind)
        schemas[name] = schema if declared is None else {"description": declared.about, **schema}
    return schemas


def is_text(name: str) -> bool:
    """Whether a field's value is text, so that a form's text is taken as it is."""
    return name not in _ALL or _ALL[name].get("type") == "string"


def body_schema(limits: Limits) -> dict[str, Any]:
    """Return the schema of a body."""
    properties = {
        name: {**schema, "type": [schema["type"], "null"], **_with_null(schema)} if "type" in schema else schema
        for name, schema in field_schemas(limits).items()
    }
    return {"type": "object", "required": ["prompt"], "properties": properties, "additionalProperties": False}


def error_schema() -> dict[str, Any]:
    """Return the schema of an answer that is an error."""
    text = {"type": ["string", "null"]}
    error = {"type": "object", "required": ["message", "type", "param", "code"], "properties": {}}
    error["properties"] = {"message": _TEXT, "type": _TEXT, "param": text, "code": text}
    return {"type": "object", "required": ["error"], "properties": {"error": error}}


def _with_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"enum": [*schema["enum"], None]} if "enum" in schema else {}


def _schema(kind: Kind) -> dict[str, Any]:
    """Return the schema of a kind of values."""
    if kind is IMAGE or kind is IMAGES:
        return _PICTURE
    if kind is PAIR:
        return {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    if kind is SERIES:
        return {"type": "array", "items": {"type": "number"}}
    if kind is FLAG:
        return {"type": "boolean"}
    if kind.written is None:
        return {"type": "array"}  # of arrays: embeddings and latents
    if kind.written is str:
        return {"type": "string", **({"enum": list(kind.choices)} if kind.choices else {})}
    bounds = {"minimum": kind.least, "maximum": kind.most}
    one: dict[str, Any] = {"type": "integer" if kind.written is int else "number"}
    one |= {name: value for name, value in bounds.items() if value is not None}
    return {"anyOf": [one, {"type": "array", "items": one}]} if kind.many else one


_ALL = field_schemas(Limits())
