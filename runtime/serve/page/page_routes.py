"""The page's files and what it asks beside OpenAI's API."""

import hashlib
from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ..services import Services
from .form_fields import fields_for

__all__ = ["page_routes"]

_TYPES = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere runs, whatever a prompt or a name says."""


def page_routes(services: Services) -> APIRouter:
    """Return the routes of the page."""
    router = APIRouter(tags=["page"])
    files = {name: _File(name, data) for name, data in _files().items()}

    @router.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        """Return the page."""
        return files["index.html"].answer(request)

    @router.get("/page/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        """Return a file that it needs."""
        return files[name].answer(request) if name in files else Response(status_code=404)

    @router.get("/v1/models/{name:path}/fields", responses={404: {"description": "There is none of that name."}})
    async def fields(name: str) -> dict[str, Any]:
        """Return what a request to a model may say: each field's meaning, group, range and default."""
        return {"object": "list", "data": fields_for(services.model(name), services.settings.limits)}

    return router


def _files() -> dict[str, bytes]:
    return {
        entry.name: entry.read_bytes()
        for entry in files(__package__).iterdir()
        if entry.name.rpartition(".")[2] in _TYPES
    }


class _File:
    """A file, held in memory."""

    def __init__(self, name: str, data: bytes) -> None:
        self._data = data
        self._headers = {
            "content-type": _TYPES[name.rpartition(".")[2]],
            "cache-control": "no-cache",
            "etag": f'"{hashlib.sha256(data).hexdigest()[:32]}"',
            "content-security-policy": _POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
        }

    def answer(self, request: Request) -> Response:
        """Return it, or say that the browser has it."""
        if request.headers.get("if-none-match") == self._headers["etag"]:
            return Response(status_code=304, headers=self._headers)
        return Response(self._data, headers=self._headers)
