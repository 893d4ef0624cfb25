"""What Ray's proxies run, without Ray: every way in which an answer can be missing."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sdengine.runtime.serve.cluster import proxy_middleware
from sdengine.runtime.serve.cluster.proxy_middleware import AlwaysAnswered

Replica = Callable[[Any, Any], Awaitable[None]]
PARTS = [{"type": "http.request", "body": b"one ", "more_body": True}, {"type": "http.request", "body": b"two"}]


def start(status: int, kind: str = "application/json", **headers: str) -> dict[str, Any]:
    raw = {"content-type": kind, **headers}
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(k.encode(), v.encode()) for k, v in raw.items()],
    }


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def read(receive: Any) -> bytes:
    found, more = b"", True
    while more:
        message = await receive()
        found, more = found + message.get("body", b""), message.get("more_body", False)
    return found


async def dies(receive: Any, send: Any) -> None:
    await read(receive)


async def echoes(receive: Any, send: Any) -> None:
    await send(start(200))
    await send(body(await read(receive)))


def answered(monkeypatch: pytest.MonkeyPatch, *replicas: Replica, gone: bool = False) -> list[dict[str, Any]]:
    """Send a request to replicas, each of which is tried in its turn; return what the client gets."""
    monkeypatch.setattr(proxy_middleware, "_PAUSE_S", 0.0)
    sent: list[dict[str, Any]] = []
    tries, parts = iter(replicas), iter(PARTS)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await next(tries)(receive, send)

    async def receive() -> Any:
        message = next(parts, None)
        if message is None or gone:
            return {"type": "http.disconnect"}
        return message

    async def send(message: Any) -> None:
        sent.append(dict(message))

    asyncio.run(AlwaysAnswered(app)({"type": "http", "path": "/"}, receive, send))
    return sent


def test_another_replica_gets_the_whole_body(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = answered(monkeypatch, dies, dies, echoes)
    assert (first["status"], second["body"]) == (200, b"one two")


def test_an_error_says_that_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(receive: Any, send: Any) -> None:
        raise OSError("the connection to the replica")

    first, second = answered(monkeypatch, dies, fails, dies)
    assert first["status"] == 503 and (b"retry-after", b"1") in first["headers"]
    assert json.loads(second["body"])["error"]["code"] == "replica_died"


def test_what_is_too_large_to_hold_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_middleware, "_HELD_MOST", 5)
    assert answered(monkeypatch, dies)[0]["status"] == 503
    assert answered(monkeypatch, echoes)[1]["body"] == b"one two"


def test_nobody_is_answered_who_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answered(monkeypatch, dies, gone=True) == []


def test_a_stream_that_breaks_off_ends_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def breaks(receive: Any, send: Any) -> None:
        await send(start(200, "text/event-stream"))
        await send(body(b"data: {}\n\n", more=True))

    _, event, end = answered(monkeypatch, breaks)
    assert event["body"] == b"data: {}\n\n" and not end["more_body"]
    assert json.loads(end["body"].removeprefix(b"data: "))["error"]["code"] == "replica_died"


def test_rays_own_errors_are_told_as_openais(monkeypatch: pytest.MonkeyPatch) -> None:
    async def busy(receive: Any, send: Any) -> None:
        await send(start(503, "text/plain", **{"retry-after": "7"}))
        await send(body(b"all are busy"))

    first, second = answered(monkeypatch, busy)
    assert first["status"] == 503 and (b"retry-after", b"7") in first["headers"]
    assert json.loads(second["body"])["error"]["message"] == "all are busy"


def test_the_request_has_one_id(monkeypatch: pytest.MonkeyPatch) -> None:
    async def twice(receive: Any, send: Any) -> None:
        message = start(200)
        message["headers"] += [(b"x-request-id", b"a"), (b"x-request-id", b"a")]
        await send(message)
        await send(body(b"{}"))

    first, _ = answered(monkeypatch, twice)
    assert [value for name, value in first["headers"] if name == b"x-request-id"] == [b"a"]
