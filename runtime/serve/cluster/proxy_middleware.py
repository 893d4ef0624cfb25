"""What runs in each of Ray Serve's proxies: a request whose replica dies is given to another one, or answered with 503.

Ray's proxies answer 500 without a body where a replica dies, and plain text where all are busy.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware

from ..api_error import ApiError

__all__ = ["AlwaysAnswered", "middlewares"]

_log = logging.getLogger("ray.serve")

_TRIES = 3
_PAUSE_S = 0.2
_HELD_MOST = 64 * 2**20
"""Bytes of a body that are held for another replica; requests with more are not repeated."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def middlewares() -> list[Middleware]:
    """Return what ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` asks for."""
    return [Middleware(AlwaysAnswered)]


class AlwaysAnswered:
    """Sees to it that every request gets an answer that clients understand.

    Nothing of an answer has been sent when a request is repeated, so that it is safe: it draws the same again.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(receive)
        for tried in range(1, _TRIES + 1):
            answer = _Answer(send)
            try:
                await self._app(dict(scope), body.again(), answer.send)
            except Exception:
                _log.exception("a proxy failed")
            if answer.ended or body.gone:
                return
            if answer.started:
                await answer.break_off()
                return
            if not body.whole:
                break
            _log.warning("no answer from a replica to %s, try %d of %d", scope["path"], tried, _TRIES)
            await asyncio.sleep(_PAUSE_S * tried)
        await _send_error(send, _lost("the replica that drew the request has died"))


class _Body:
    """The messages of a request, which can be read again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._read: list[Message] = []
        self._held = 0
        self.gone = False
        self.whole = True
        """Whether all that was read is held."""

    def again(self) -> Receive:
        """Return what gives the messages from the first one on."""
        position = 0

        async def receive() -> Message:
            nonlocal position
            if position < len(self._read):
                position += 1
                return self._read[position - 1]
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone = True
                return message
            self._held += len(message.get("body", b""))
            self.whole = self.whole and self._held <= _HELD_MOST
            if self.whole:
                self._read.append(message)
                position += 1
            else:
                self._read.clear()
                position = 0
            return message

        return receive


class _Answer:
    """Sends an answer on, errors of Ray's in OpenAI's shape, and knows how far it has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._events = False
        self._plain: tuple[Message, list[bytes]] | None = None
        self.started = False
        self.ended = False

    async def send(self, message: Message) -> None:
        """Send a message of an answer."""
        if message["type"] == "http.response.start":
            self.started = True
            headers = MutableHeaders(scope=message)
            ids = headers.getlist("x-request-id")
            if len(ids) > 1:  # Ray adds its own
                headers["x-request-id"] = ids[0]
            kind = Headers(raw=message["headers"]).get("content-type", "")
            self._events = kind.startswith("text/event-stream")
            if message["status"] in (408, 429, 503) and not kind.startswith("application/json"):
                self._plain = message, []
                return
        elif message["type"] == "http.response.body":
            self.ended = not message.get("more_body", False)
            if self._plain is not None:
                self._plain[1].append(message.get("body", b""))
                if self.ended:
                    await self._send_plain()
                return
        await self._send(message)

    async def _send_plain(self) -> None:
        assert self._plain is not None
        start, parts = self._plain
        text = b"".join(parts).decode("utf-8", "replace").strip('"')
        kind = "rate_limit_error" if start["status"] == 429 else "service_unavailable"
        wait = Headers(raw=start["headers"]).get("retry-after", "1")
        error = ApiError(start["status"], text, kind=kind, code="cluster_busy", headers={"retry-after": wait})
        await _send_error(self._send, error)

    async def break_off(self) -> None:
        """End an answer that its replica will not end; a stream of events says why."""
        if self._plain is not None:
            await self._send_plain()
        elif self._events:
            data = json.dumps(_lost("the replica that drew the request has died").body)
            await self._send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": False})
        # Of another answer a part is missing: the connection is closed, and clients see that it was cut off.


def _lost(message: str) -> ApiError:
    return ApiError(503, message, kind="service_unavailable", code="replica_died", headers={"retry-after": "1"})


async def _send_error(send: Send, error: ApiError) -> None:
    data = json.dumps(error.body).encode()
    headers = {"content-type": "application/json", "content-length": str(len(data)), **(error.headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": data, "more_body": False})
