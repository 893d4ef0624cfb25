"""Values of a body's fields, checked one at a time."""

from collections.abc import Mapping
from typing import Any

from ...engines.errors import nearest
from ...engines.scalars import shortened
from .api_error import ApiError

__all__ = ["as_text", "choice_of", "flag_of", "invalid", "text_of"]


def flag_of(fields: Mapping[str, Any], name: str) -> bool:
    """Return a field that is true or false; false where it is not sent."""
    value = fields.get(name, False)
    if not isinstance(value, bool):
        raise invalid(name, f"{name}={shortened(value)} must be true or false")
    return value


def choice_of(fields: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    """Return a field that is one of some words; the first of them where it is not sent."""
    value = fields.get(name, known[0])
    if value not in known:
        message = f"{name}={shortened(value)} is none of {', '.join(known)}{nearest(value, known)}"
        raise invalid(name, message)
    return str(value)


def text_of(fields: Mapping[str, Any], name: str) -> str | None:
    """Return a field that is text, or None where it is not sent."""
    return as_text(name, fields[name]) if name in fields else None


def as_text(name: str, value: Any) -> str:
    """Return a value, if it is text."""
    if not isinstance(value, str):
        raise invalid(name, f"{name}={shortened(value)} must be text")
    return value


def invalid(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """Return the error of a field: status 400."""
    return ApiError(400, message, param=param[:100], code=code)
