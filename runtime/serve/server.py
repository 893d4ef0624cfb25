"""Runs the application on uvicorn, from its socket to its orderly end."""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from ...engines.errors import SdengineError, UsageError
from .app import build_app
from .connections import backlog_for, open_files_most, protocol
from .failures import ClosedError
from .serve_settings import ServeSettings
from .services import Services

__all__ = ["check_certificate", "serve"]

_log = logging.getLogger("sdengine.serve")

_ANSWERS_S = 5.0
"""Seconds for answers to be read when the grace period is over."""
_STALLED_MS = 120_000
"""A client that reads nothing for so long is disconnected."""


def serve(
    settings: ServeSettings,
    *,
    host: str,
    port: int,
    root_path: str = "",
    ssl_keyfile: Path | None = None,
    ssl_certfile: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UsageError: certificate and key are no pair that can be read.
        SdengineError: a bundle cannot be opened, or the address cannot be listened on.

    """
    check_certificate(ssl_certfile, ssl_keyfile)
    listening = _listening(host, port)
    try:
        app, files = build_app(settings), open_files_most()
        config = uvicorn.Config(
            app,
            http=protocol(files, settings.limits.body_timeout),
            log_config=None,
            access_log=False,
            server_header=False,
            root_path=root_path,
            ssl_keyfile=ssl_keyfile,
            ssl_certfile=ssl_certfile,
            backlog=backlog_for(files),
            timeout_graceful_shutdown=int(settings.shutdown_timeout + _ANSWERS_S),
        )
        scheme, address = ("https" if ssl_certfile else "http"), listening.getsockname()
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        _log.info("listening", extra={"url": f"{scheme}://{shown}:{address[1]}", "models": list(settings.aliases)})
        asyncio.run(_Server(config, app.state.services).serve([listening]))
    finally:
        listening.close()


class _Server(uvicorn.Server):
    """Lets what was accepted end when it is to end itself, and answers the rest with an error."""

    def __init__(self, config: uvicorn.Config, services: Services) -> None:
        super().__init__(config)
        self._services = services

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in order at the first signal, and with status 0; a second one ends the process at once."""
        loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)

        def stop(number: int) -> None:
            _log.info("ending", extra={"signal": signal.Signals(number).name})
            self.should_exit = True
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

        for number in numbers:
            loop.add_signal_handler(number, stop, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See :class:`uvicorn.Server`."""
        aborting = asyncio.ensure_future(self._drain())
        try:
            await super().shutdown(sockets)
        finally:
            aborting.cancel()

    async def _drain(self) -> None:
        worker, seconds = self._services.worker, self._services.settings.shutdown_timeout
        worker.drain("the server is shutting down")
        if not await worker.idle(seconds):
            worker.abort(ClosedError(f"the server is shutting down, and the request was not done within {seconds:g} s"))


def check_certificate(certfile: Path | None, keyfile: Path | None) -> None:
    """Make sure that TLS can be spoken with these files, if they are given.

    Raises:
        UsageError: a key without a certificate; or they cannot be read, do not belong together, or need a password.

    """
    if certfile is None:
        if keyfile is not None:
            raise UsageError("--ssl-keyfile needs --ssl-certfile")
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password="")
    except (OSError, ValueError) as error:
        files = f"--ssl-certfile {certfile}" + (f" with --ssl-keyfile {keyfile}" if keyfile else "")
        raise UsageError(f"{files} cannot be used: {getattr(error, 'strerror', None) or error}") from error


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, but does not listen yet.

    Raises:
        SdengineError: the address is not this machine's, or in use.

    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED_MS)
        listening.bind(address)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SdengineError(f"cannot listen on {host!r} port {port}: {reason}") from error
    return listening
