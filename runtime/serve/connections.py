"""Connections of the server: no more than the process can have files, and none that never says what it asks."""

import asyncio
import json
import sys

from uvicorn.protocols.http.h11_impl import H11Protocol

from .api_error import ApiError

__all__ = ["backlog_for", "open_files_most", "protocol"]

_FILES_MOST = 65_536
_RESERVED = 128
"""Files for weights, libraries and pipes, which connections must not take."""
_BACKLOG_MOST = 2048
_LINGER_S = 1.0
"""For a client that is refused to send the rest of its request, and for one that sends while the server ends."""


def open_files_most() -> int:
    """Let the process open as many files as it may be allowed to; return how many that is."""
    if sys.platform == "win32":
        return 512
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _FILES_MOST if hard == resource.RLIM_INFINITY else min(hard, _FILES_MOST)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return _FILES_MOST if soft == resource.RLIM_INFINITY else min(soft, _FILES_MOST)


def backlog_for(files: int) -> int:
    """Return how many connections may wait to be accepted: asyncio takes all at once, and more before it closes any."""
    return max(1, min(_BACKLOG_MOST, (files - _RESERVED) // 16))


def protocol(files: int, head_timeout: float) -> type[H11Protocol]:
    """Return the class of a server's connections.

    Args:
        files: that the process can open. When half of them are connections, further ones are answered with 503, and
            closed at once where even that would take too many.
        head_timeout: seconds for the head of a request to come, from the connection or its first byte on; then it is
            closed.

    """
    free = max(8, files - _RESERVED)
    most, refused = free // 2, free // 8

    class Connection(H11Protocol):
        _silent: asyncio.TimerHandle | None = None
        _refused = False
        _told = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._refused = len(self.connections) > most
            if len(self.connections) > most + refused:
                transport.abort()
            else:
                self._close_in(_LINGER_S if self._refused else head_timeout)

        def data_received(self, data: bytes) -> None:
            if self._refused:
                if not self._told:
                    self._told = True
                    self.transport.write(_BUSY)
                return
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._close_in(head_timeout)
            else:
                self._stay()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stay()
            super().connection_lost(exc)

        def shutdown(self) -> None:
            """Let a request that is on its way have an answer: idle connections are closed a little later."""
            if self.cycle is None or self.cycle.response_complete:
                self.loop.call_later(_LINGER_S, self._end)
            else:
                super().shutdown()

        def _end(self) -> None:
            if not self.transport.is_closing():
                super().shutdown()

        def _close_in(self, seconds: float) -> None:
            if self._silent is None:
                self._silent = self.loop.call_later(seconds, self.transport.close)

        def _stay(self) -> None:
            if self._silent is not None:
                self._silent.cancel()
                self._silent = None

    return Connection


def _busy() -> bytes:
    error = ApiError(503, "too many connections are open", kind="service_unavailable", code="too_many_connections")
    body = json.dumps(error.body).encode()
    lines = ["HTTP/1.1 503 Service Unavailable", "content-type: application/json", "retry-after: 1"]
    lines += ["connection: close", f"content-length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


_BUSY = _busy()
