"""Reads a request's body, JSON or a form, to its fields."""

import asyncio
import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from .api_error import ApiError
from .schema import is_text
from .uploads import Upload

__all__ = ["ClientDisconnect", "discard", "fields_of"]

_FIELDS_MOST = 1000
_FILES_MOST = 32
_KEYS_MOST = 4096
_VALUES_MOST = 2**21
"""Of JSON: embeddings and latents are arrays of this size at most. Reading many more would hold up all others."""


async def fields_of(request: Request, *, form: bool) -> dict[str, Any]:
    """Return the fields of a body, None where null was sent.

    Args:
        request: the HTTP request.
        form: whether a form may be sent in place of JSON.

    Raises:
        ApiError: it is of another type, or cannot be read.
        ClientDisconnect: the client has gone.

    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        message = f"the content encoding {encoding[:100]!r} is not read here; send the body as it is"
        raise ApiError(415, message, code="unsupported_encoding")
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "application/json":
        return _from_json(await request.body())
    if form and kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        return await _from_form(request)
    accepted = "application/json or multipart/form-data" if form else "application/json"
    raise ApiError(415, f"the content type {kind[:100]!r} is not read here; send {accepted}", code="unsupported_type")


_DISCARD_MOST = 2**20
_DISCARD_S = 2.0


async def discard(receive: Receive) -> None:
    """Read a small body to its end: a client that still sends might not see an answer that comes before."""
    read = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while read < _DISCARD_MOST:
                message = await receive()
                read += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _from_json(data: bytes) -> dict[str, Any]:
    if data.count(b",") > _VALUES_MOST or data.count(b'":') > _KEYS_MOST:
        message = f"the body has more than {_VALUES_MOST} values, or more than {_KEYS_MOST} names"
        raise ApiError(413, message, code="too_large")
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    return value


async def _from_form(request: Request) -> dict[str, Any]:
    try:
        async with request.form(max_files=_FILES_MOST, max_fields=_FIELDS_MOST, max_part_size=2**24) as form:
            items = [
                (name, Upload(await value.read()) if isinstance(value, UploadFile) else value)
                for name, value in form.multi_items()
            ]
    except HTTPException as error:
        raise ApiError(400, f"the form cannot be read: {error.detail}", code="invalid_form") from error
    except (UnicodeDecodeError, ValueError, KeyError) as error:
        raise ApiError(400, f"the form cannot be read: {error}", code="invalid_form") from error
    return _nested(items)


def _nested(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return a form's fields: ``name[]`` again and again is a list, ``name[key]`` an object."""
    fields: dict[str, Any] = {}
    for full, value in items:
        match = re.fullmatch(r"([^\[\]]+)(?:\[([^\[\]]*)\])?", full)
        if match is None:
            raise ApiError(400, f"the field name {full[:100]!r} is not understood", code="unknown_field")
        name, inner = match[1], match[2]
        plain = value if isinstance(value, Upload) or (is_text(name) and inner is None) else _value(value)
        if inner is None:
            if name in fields:
                message = f"{name[:100]} was sent more than once; lists are sent as {name[:100]}[]"
                raise ApiError(400, message, param=name[:100], code="invalid_value")
            fields[name] = plain
            continue
        several = fields.setdefault(name, {} if inner else [])
        if isinstance(several, list) and not inner:
            several.append(plain)
        elif isinstance(several, dict) and inner:
            several[inner] = plain
        else:
            raise ApiError(400, f"{name[:100]} was sent in two ways", param=name[:100], code="invalid_value")
    return fields


def _value(text: str) -> Any:
    """Return what a form's text means where a field is no text: a number, true, a list."""
    if re.fullmatch(r"[+-]?(\.[0-9]+|[0-9]+\.)", text):  # .5 is no JSON, but what people write
        return float(text)
    try:
        return json.loads(text, parse_constant=lambda _: text)
    except (ValueError, RecursionError):
        return text
