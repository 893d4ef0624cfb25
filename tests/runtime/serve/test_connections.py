"""Connections that say nothing are closed, and more than there are files for are told so."""

import asyncio
import contextlib
import json
import resource
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from sdengine.runtime.serve.connections import backlog_for, open_files_most, protocol

ASK = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
MOST = 8
"""Connections that are served where a process can open 144 files."""


async def answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def listening(head_timeout: float, servers: list[uvicorn.Server] | None = None) -> AsyncIterator[int]:
    kind = protocol(128 + 2 * MOST, head_timeout)
    config = uvicorn.Config(answer, port=0, http=kind, lifespan="off", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    (servers if servers is not None else []).append(server)
    running = asyncio.ensure_future(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running


@contextlib.asynccontextmanager
async def connected(port: int, said: bytes) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(said)
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def run(test: Any) -> None:
    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.parametrize("said", [b"", b"GET / HT"])
def test_half_a_head(said: bytes) -> None:
    async def test() -> None:
        async with listening(0.2) as port, connected(port, said) as reader:
            assert await reader.read() == b""

    run(test)


def test_more_connections_than_there_is_room_for() -> None:
    async def status(port: int) -> bytes:
        async with connected(port, ASK) as reader:
            return await reader.readline()

    async def test() -> None:
        async with listening(60) as port:
            async with contextlib.AsyncExitStack() as held:
                for _ in range(MOST):
                    reader = await held.enter_async_context(connected(port, ASK))
                    assert (await reader.readline()).startswith(b"HTTP/1.1 204")
                async with connected(port, ASK) as reader:
                    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in head
                assert json.loads(body)["error"]["code"] == "too_many_connections"
            while not (await status(port)).startswith(b"HTTP/1.1 204"):
                await asyncio.sleep(0.01)  # until the server has seen that the others have gone

    run(test)


def test_a_request_that_is_sent_while_the_server_ends() -> None:
    """On a connection that was idle: it is answered, whatever the answer is then."""

    async def refuses(port: int) -> bool:
        try:
            async with connected(port, b""):
                return False
        except OSError:
            return True

    async def test() -> None:
        servers: list[uvicorn.Server] = []
        async with listening(60, servers) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
            servers[0].should_exit = True
            while not await refuses(port):
                await asyncio.sleep(0.01)
            writer.write(ASK)
            assert (await reader.readline()).startswith(b"HTTP/1.1 204")
            writer.close()
            await writer.wait_closed()

    run(test)


def test_room_for_connections() -> None:
    files = open_files_most()
    assert files >= min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 65_536)
    assert backlog_for(1024) == 56 and backlog_for(1) == 1 and backlog_for(65_536) == 2048
