"""A real server under load, attack and SIGTERM: every accepted request is answered, and nobody harms the others."""

import asyncio
import base64
import contextlib
import io
import json
import signal
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image
from sdengine.runtime import Pipeline

from ...bundles import bundle_of
from ..parity.oracle import picture
from .conftest import Server, get, post, serving

SIZE = {"size": "72x48"}
LONG = {"prompt": "a long one", "num_inference_steps": 200, **SIZE}


def connected(server: Server) -> socket.socket:
    parts = urlsplit(server.url)
    return socket.create_connection((parts.hostname, parts.port), timeout=30)


def head(length: int, *, kind: str = "application/json", path: str = "/v1/images/generations") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: here", f"Content-Type: {kind}", f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def data_url(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def test_32_clients_get_the_images_that_they_get_alone(server: Server) -> None:
    requests: list[dict[str, Any]] = [
        {
            "prompt": f"a house {i % 5}",
            "seed": i,
            "num_inference_steps": 2 + i % 7,
            "guidance_scale": 1.0 + 3 * (i % 2),
            "height": 48,
            "width": 48 + 24 * (i % 3),
            "scheduler": ("DDIMScheduler", "EulerAncestralDiscreteScheduler", "dpmpp_2m")[i % 3],
        }
        for i in range(32)
    ]
    start = picture(48, 72, 1)
    for request in requests[::8]:
        request |= {"image": start, "strength": 0.7, "height": None, "width": None}
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1) as pipe:
        expected = [pipe(**{k: v for k, v in r.items() if v is not None}).images[0] for r in requests]

    async def ask() -> list[httpx.Response]:
        bodies = [{**r, "image": data_url(r["image"]) if "image" in r else None} for r in requests]
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
            return await asyncio.gather(
                *[client.post(f"{server.url}/v1/images/generations", json=body) for body in bodies]
            )

    for answer, request, image in zip(asyncio.run(ask()), requests, expected, strict=True):
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert body["seeds"] == [request["seed"]]
        drawn = Image.open(io.BytesIO(base64.b64decode(body["data"][0]["b64_json"])))
        assert np.array_equal(np.asarray(drawn), np.asarray(image))


def test_a_client_that_hangs_up_frees_its_slot_within_one_step(server: Server) -> None:
    before = server.metrics()
    body = {"prompt": "a house", "num_inference_steps": 200, "stream": True, "progress": True, **SIZE}
    with httpx.stream("POST", f"{server.url}/v1/images/generations", json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and json.loads(line[6:])["step"] >= 3:
                break
    wait_until(lambda: server.metrics()["active_slots"] == 0)
    after = server.metrics()
    assert after["request_cancelled_total"] == before["request_cancelled_total"] + 1
    assert after["evaluations_total"] - before["evaluations_total"] < 200
    assert after["num_requests_running"] == 0


def test_clients_that_leave_without_a_stream(server: Server) -> None:
    """One that is drawn for, and one that waits; neither holds up the third."""
    before = server.metrics()
    body = json.dumps({**LONG, "n": 10}).encode()
    leaving = [connected(server) for _ in range(6)]
    for one in leaving:
        one.sendall(head(len(body)) + body)
    wait_until(lambda: server.metrics()["num_requests_running"] + server.metrics()["num_requests_waiting"] >= 6)
    wait_until(lambda: server.metrics()["active_slots"] >= 1)
    for one in leaving:
        one.close()
    assert server.draw(prompt="a house", num_inference_steps=2).status_code == 200
    wait_until(lambda: server.metrics()["active_slots"] == 0)
    after = server.metrics()
    assert after["request_cancelled_total"] == before["request_cancelled_total"] + 6
    assert (after["num_requests_running"], after["num_requests_waiting"]) == (0, 0)


def test_a_flood_is_answered_with_images_or_429() -> None:
    async def flood(server: Server) -> Counter[int]:
        seen: Counter[int] = Counter()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=120, limits=limits) as client:

            async def one(i: int) -> None:
                body = {"prompt": f"a {i % 3}", "num_inference_steps": 2, **SIZE}
                answer = await client.post(f"{server.url}/v1/images/generations", json=body)
                seen[answer.status_code] += 1
                if answer.status_code == 429:
                    assert 1 <= int(answer.headers["retry-after"]) <= 120
                    assert answer.json()["error"]["code"] == "queue_full"

            await asyncio.gather(*[one(i) for i in range(150)])
        return seen

    with serving("--max-num-queued-reqs", "8", "--max-num-seqs", "2") as server:
        seen = asyncio.run(flood(server))
        assert set(seen) == {200, 429} and seen.total() == 150, seen
        numbers = server.metrics()
        assert numbers["admission_rejections_total"] == seen[429]
        assert numbers["request_success_total"] == seen[200]
        assert numbers["slots"] == 2


@pytest.mark.parametrize("grace", ["30", "0"])
def test_sigterm_loses_nothing_that_was_accepted(grace: str) -> None:
    async def load(server: Server) -> list[httpx.Response]:
        steps = 12 if grace == "30" else 200
        body = {"prompt": "a house", "num_inference_steps": steps, **SIZE}
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
            tasks = [
                asyncio.ensure_future(client.post(f"{server.url}/v1/images/generations", json=body)) for _ in range(12)
            ]
            while (await client.get(f"{server.url}/health")).json()["running"] < 1:
                await asyncio.sleep(0.01)
            numbers = (await client.get(f"{server.url}/health")).json()
            while numbers["running"] + numbers["waiting"] + sum(task.done() for task in tasks) < 12:
                await asyncio.sleep(0.01)
                numbers = (await client.get(f"{server.url}/health")).json()
            server.process.send_signal(signal.SIGTERM)
            return await asyncio.gather(*tasks)

    with serving("--shutdown-timeout", grace) as server:
        answers = asyncio.run(load(server))
        statuses = Counter(answer.status_code for answer in answers)
        if grace == "30":
            assert statuses == {200: 12}
        else:
            assert set(statuses) <= {200, 503} and statuses[503] > 0
            refused = next(answer for answer in answers if answer.status_code == 503)
            assert refused.json()["error"]["code"] == "shutting_down"
        assert server.process.wait(60) == 0
        with contextlib.suppress(OSError):
            connected(server).close()
            raise AssertionError("it still listens")


def test_half_a_body_and_a_slow_reader_hold_up_nobody() -> None:
    with serving("--body-timeout", "2", "--sse-keep-alive-interval", "0.005") as server:
        half, slow = connected(server), connected(server)
        half.sendall(head(1000) + b'{"prompt": "a')
        many = json.dumps({"prompt": "a", "n": 10, "num_inference_steps": 2, "size": "128x128"}).encode()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(head(len(many)) + many)
        assert server.draw(prompt="a house", num_inference_steps=2).status_code == 200
        assert half.recv(4096).startswith(b"HTTP/1.1 408")
        half.close()
        slow.close()
        body = {**LONG, "num_inference_steps": 40, "stream": True}
        with httpx.stream("POST", f"{server.url}/v1/images/generations", json=body, timeout=60) as answer:
            lines = list(answer.iter_lines())
    assert ": still at work" in lines and any(line.startswith("data: ") for line in lines)


def test_bodies_that_are_none(server: Server) -> None:
    url = f"{server.url}/v1/images/generations"
    edits = f"{server.url}/v1/images/edits"
    small = {"prompt": "a", "num_inference_steps": 2}
    for answer, status, code in (
        (post(url, content=b"{"), 400, "invalid_json"),
        (post(url, content=b"[1]"), 400, "invalid_json"),
        (post(url, content=b"[" * 100_000), 400, "invalid_json"),
        (post(url, content=b'{"prompt": "\\ud800"}'), 400, "invalid_json"),
        (post(url, content=b"prompt=a", headers={"content-type": "text/plain"}), 415, "unsupported_type"),
        (post(url, json={}), 400, "missing_field"),
        (post(url, json={"prompt": 5}), 400, "invalid_value"),
        (post(url, json={**small, "image": "AAAA"}), 400, "invalid_value"),
        (post(edits, json=small), 400, "missing_field"),
        (post(edits, content=b"--x", headers={"content-type": "multipart/form-data; boundary=y"}), 400, None),
        (post(edits, data={"prompt": "a"}, files={"image": b"no picture"}), 400, "invalid_value"),
        (post(edits, json={**small, "images": [{"image_url": "x"}]}), 400, "unknown_field"),
        (post(url, content=b"{}", headers={"content-encoding": "gzip"}), 415, "unsupported_encoding"),
        (post(url, content=b'{"latents":[' + b"0," * (2**21 + 1) + b"0]}"), 413, "too_large"),
        (post(url, content=b"{" + b'"a":0,' * 2**13 + b'"b":0}'), 413, "too_large"),
        (get(url), 405, "method_not_allowed"),
        (get(f"{server.url}/nothing"), 404, "not_found"),
    ):
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert code is None or error["code"] == code, error
    large = Image.new("L", (5000, 5000))
    answer = post(url, json={**small, "image": data_url(large)})
    assert answer.status_code == 400 and "5000x5000" in answer.text
    with connected(server) as stream:
        stream.sendall(head(2**40))
        assert stream.recv(4096).startswith(b"HTTP/1.1 413")


def test_who_is_refused_is_counted_by_reason(server: Server) -> None:
    def counted() -> dict[str, float]:
        start = 'sdengine:admission_rejections_total{reason="'
        lines = get(f"{server.url}/metrics").text.splitlines()
        found = [line for line in lines if line.startswith(start)]
        return {line[len(start) :].partition(chr(34))[0]: float(line.rpartition(" ")[2]) for line in found}

    url, before = f"{server.url}/v1/images/generations", counted()
    bad: list[dict[str, Any]] = [{"foo": 1}, {"foo": 2}, {"n": 99}, {"model": "x"}, {"svg": 1}, {"seed": "x"}]
    assert all(server.draw(prompt="a", **fields).status_code in (400, 404) for fields in bad)
    assert post(url, content=b"{").status_code == 400
    with connected(server) as stream:
        stream.sendall(head(2**40))
        assert stream.recv(4096).startswith(b"HTTP/1.1 413")
    late = post(url, json={"prompt": "a", "num_inference_steps": 200, "timeout": 1e-3})
    assert late.status_code == 504  # was accepted
    expected = {"unknown_field": 2, "invalid_value": 2, "model_not_found": 1, "unsupported_field": 1}
    expected |= {"invalid_json": 1, "too_large": 1}
    after = counted()
    assert {reason: after[reason] - before.get(reason, 0.0) for reason in after} == {
        **dict.fromkeys(after, 0.0),
        **expected,
    }


def test_numbers_in_a_form_as_people_write_them(server: Server) -> None:
    data = {"prompt": "a", "strength": ".9", "num_inference_steps": "3", "guidance_scale": "2."}
    stream = io.BytesIO()
    picture(48, 72, 1).save(stream, "PNG")
    answer = post(f"{server.url}/v1/images/edits", data=data, files={"image": stream.getvalue()})
    assert answer.status_code == 200, answer.text


def test_keys_config_and_logs(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("served-model-name: [first, second]\nmax-n: 3\nmax-steps: 7\napi-key: [from the file]\n")
    environment = {"SDENGINE_API_KEY": "secret-1", "SDENGINE_MAX_STEPS": "9"}
    with serving("--config", str(config), "--max-steps", "5", env=environment) as server:
        url, key = f"{server.url}/v1/images/generations", {"authorization": "Bearer secret-1"}
        small = {"prompt": "a", "num_inference_steps": 2}
        for headers in ({}, {"authorization": "Bearer secret-2"}, {"authorization": "Basic secret-1"}):
            refused = post(url, json=small, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        assert get(f"{server.url}/v1/models").status_code == 401
        assert all(get(f"{server.url}/{path}").status_code == 200 for path in ("live", "health", "ready", "metrics"))
        models = get(f"{server.url}/v1/models", headers=key).json()["data"]
        assert [model["id"] for model in models] == ["first", "second"]
        answer = post(url, json={**small, "model": "second"}, headers={**key, "x-request-id": "mine-1"})
        assert (answer.status_code, answer.headers["x-request-id"], answer.json()["id"]) == (200, "mine-1", "mine-1")
        assert "5 is the most" in post(url, json={**small, "num_inference_steps": 6}, headers=key).text
        assert "3 is the most" in post(url, json={**small, "n": 4}, headers=key).text
        late = post(url, json={**small, "num_inference_steps": 5, "n": 3, "timeout": 1e-3}, headers=key)
        assert (late.status_code, late.headers["x-should-retry"]) == (504, "false")
        wait_until(lambda: any(line.get("request_id") == "mine-1" for line in server.log()))
        (entry,) = [line for line in server.log() if line.get("request_id") == "mine-1"]
        assert entry["status"] == 200 and entry["model"] == "first" and entry["path"] == "/v1/images/generations"
        assert "secret" not in "".join(server.lines)
