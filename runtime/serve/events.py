"""Answers that take long: a stream of events with heartbeats, and an answer that is given up when the client leaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

__all__ = ["ClientGoneError", "EventStream", "unless_gone"]

_T = TypeVar("_T")
_HEARTBEAT = b": still at work\n\n"


class ClientGoneError(Exception):
    """The client has closed the connection: there is nobody to answer."""


async def unless_gone(request: Request, work: Awaitable[_T]) -> _T:
    """Wait for work, and cancel it as soon as the client has gone.

    Raises:
        ClientGoneError: it has.

    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class EventStream(Response):
    """Sends events as they come, a comment where none has come for a while, and stops when the client has gone.

    Args:
        events: the bytes of each event; closed at the end, however it comes.
        heartbeat: seconds between comments; 0 sends none.
        on_close: called at the end, also where the client has gone before there was an event to wait for.

    """

    media_type = "text/event-stream"

    def __init__(
        self, events: Callable[[], AsyncIterator[bytes]], *, heartbeat: float, on_close: Callable[[], None]
    ) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._heartbeat = heartbeat
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for one in (sending, gone):
                one.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            self._on_close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for part in _with_heartbeats(self._events(), self._heartbeat):
            await send(_body(part, more=True))
        await send(_body(b"", more=False))


async def _with_heartbeats(events: AsyncIterator[bytes], seconds: float) -> AsyncIterator[bytes]:
    following = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            await asyncio.wait((following,), timeout=seconds or None)
            if not following.done():
                yield _HEARTBEAT
                continue
            if (part := following.result()) is None:
                return
            following = asyncio.ensure_future(anext(events, None))
            yield part
    finally:
        following.cancel()
        with contextlib.suppress(BaseException):
            await following
        if hasattr(events, "aclose"):
            await events.aclose()


def _body(part: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": part, "more_body": more}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
