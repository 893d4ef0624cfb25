"""What happens around every request: its id, the key, limits of its body, and a line in the log."""

import asyncio
import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse

from .api_error import ApiError
from .body import discard
from .json_logs import REQUEST_ID
from .limits import Limits
from .metrics import Metrics

__all__ = ["Guard"]

_log = logging.getLogger("sdengine.serve.http")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_GUARDED = "/v1"
_QUIET = ("/health", "/live", "/ready", "/metrics")
"""Asked every few seconds: not logged where all is well."""


class Guard:
    """Stands before the app.

    Args:
        app: what answers.
        keys: one of which requests to ``/v1`` must carry; none lets everybody in but browsers on behalf of pages
            elsewhere. Only their hashes are held.
        allowed_origins: of pages elsewhere that are let in, too; ``*`` is all.
        limits: of bodies.
        metrics: told how long answers took.

    """

    def __init__(
        self, app: App, *, keys: Iterable[str], allowed_origins: Iterable[str], limits: Limits, metrics: Metrics
    ) -> None:
        self._app = app
        self._keys = [_digest(key.encode()) for key in keys]
        self._allowed_origins = frozenset(allowed_origins)
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, started, status = Headers(scope=scope), time.monotonic(), 0
        request_id = _request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        token = REQUEST_ID.set(request_id)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            try:
                self._check(scope, headers)
                await self._app(scope, self._limited(receive), sending)
            except ApiError as error:  # also what reading a body raises, far within
                if status:
                    raise
                self._metrics.refused(error)
                if error.status == 401:
                    await discard(receive)
                await JSONResponse(error.body, error.status, error.headers)(scope, receive, sending)
        finally:
            self._note(scope, status, time.monotonic() - started)
            REQUEST_ID.reset(token)

    def _check(self, scope: Scope, sent_headers: Headers) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        guarded = path == _GUARDED or path.startswith(_GUARDED + "/")
        if self._keys and guarded and scope["method"] != "OPTIONS":
            kind, _, key = sent_headers.get("authorization", "").partition(" ")
            sent = _digest(key.strip().encode("utf-8", "surrogateescape"))
            # All are compared, so that the time says nothing about which one was close.
            same = [hmac.compare_digest(sent, known) for known in self._keys]
            if kind.lower() != "bearer" or not any(same):
                message = "the API key is missing or wrong; send it as: Authorization: Bearer KEY"
                raise ApiError(
                    401,
                    message,
                    kind="authentication_error",
                    code="invalid_api_key",
                    headers={"www-authenticate": "Bearer"},
                )
        if not self._keys and guarded and scope["method"] == "POST":
            self._check_origin(sent_headers)
        length = sent_headers.get("content-length", "0")
        if length.isdecimal() and int(length[:20]) > self._limits.body:
            raise self._too_large()

    def _check_origin(self, sent_headers: Headers) -> None:
        """Refuse what a browser sends for a page elsewhere, which needs nobody's leave where there is no key."""
        origin = sent_headers.get("origin")
        if origin is None or {origin, "*"} & self._allowed_origins:
            return
        # Browsers say the former only where they trust the connection.
        here = origin.partition("://")[2] == sent_headers.get("host")
        if sent_headers.get("sec-fetch-site", "same-origin" if here else "cross-site") != "same-origin":
            message = f"pages of {origin[:200]} may not use this server; it allows them with --allowed-origins"
            raise ApiError(403, message, kind="permission_error", code="origin_not_allowed")

    def _limited(self, receive: Receive) -> Receive:
        """Count a body's bytes, and wait for each part of it for so long only."""
        read, whole = 0, False

        async def receiving() -> Message:
            nonlocal read, whole
            if whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._limits.body_timeout)
            except TimeoutError as error:
                text = f"no byte of the body came for {self._limits.body_timeout:g} s"
                raise ApiError(408, text, code="body_timeout", headers={"x-should-retry": "false"}) from error
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if read > self._limits.body:
                    raise self._too_large()
            else:
                whole = True
            return message

        return receiving

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the body has more than {self._limits.body} bytes, the most that are taken", code="too_large"
        )

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "other")
        self._metrics.http.labels(path, str(status or 499)).observe(seconds)
        if path in _QUIET and status < 400:
            return
        about = scope["state"].get("log", {})
        extra = {"method": scope["method"], "path": scope["path"][:200], "status": status or 499, **about}
        _log.info("request", extra={**extra, "duration_ms": round(seconds * 1e3, 1)})


def _request_id(sent: str | None) -> str:
    """Return the client's own id if it is one, else a new one."""
    if sent is not None and re.fullmatch(r"[\w.:-]{1,128}", sent, re.ASCII):
        return sent
    return uuid.uuid4().hex


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
