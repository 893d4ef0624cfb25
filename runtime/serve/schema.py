"""JSON schemas of the fields of a body, for the API's description and for reading forms."""

import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..request.request import Request
from .asked import IMAGES, OPENAI, OWN, REQUEST, Limits

__all__ = ["body_schema", "error_schema", "field_schemas", "is_text"]

_TEXT = {"type": "string"}
_PICTURE = {"type": "string", "description": "A data URL or base64 of a PNG, JPEG or WebP; in a form, a file."}
_HINTS = typing.get_type_hints(Request)
_PLAIN: Mapping[Any, dict[str, Any]] = {
    str: _TEXT,
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
}


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
        "mask": {**_PICTURE, "description": "Drawn anew where its alpha is 0. " + _PICTURE["description"]},
        "priority": {"type": "integer", "minimum": -1000, "maximum": 1000, "default": 0},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": limits.timeout},
        "progress": {"type": "boolean", "default": False},
        "scheduler": _TEXT,
        "scheduler_config": {"type": "object"},
        "num_inference_steps": {"type": "integer", "minimum": 1, "maximum": limits.steps},
        "prompt_2": _TEXT,
        "negative_prompt": _TEXT,
        "negative_prompt_2": _TEXT,
        **dict.fromkeys(IMAGES, _PICTURE),
    }
    names = dict.fromkeys((*OPENAI, *OWN, *REQUEST))
    return {name: own[name] if name in own else _schema(_HINTS[name]) for name in names}


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


def _schema(hint: Any) -> dict[str, Any]:
    """Return the schema of a type."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        several = [_schema(one) for one in arguments if one is not type(None)]
        return several[0] if len(several) == 1 else {"anyOf": several}
    if origin is Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0]), "minItems": len(arguments), "maxItems": len(arguments)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object"}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": _schema(arguments[0])}
    return {"type": "array"}  # of any depth: embeddings and latents


_ALL = field_schemas(Limits())
