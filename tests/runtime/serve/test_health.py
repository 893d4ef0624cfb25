"""A server says how its worker is; several bundles are served side by side."""

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sdengine.engines.errors import EngineError
from sdengine.runtime import Pipeline
from sdengine.runtime.denoise import Batch
from sdengine.runtime.serve.app import create_app
from sdengine.runtime.serve.metrics import Metrics
from sdengine.runtime.serve.policy import step_level
from sdengine.runtime.serve.serve_settings import ServeSettings
from sdengine.runtime.serve.services import Services
from sdengine.runtime.serve.worker import Worker

from ...bundles import bundle_of

BODY: dict[str, Any] = {"prompt": "a house", "num_inference_steps": 2, "size": "48x40"}


def with_app(
    test: Callable[[httpx.AsyncClient], Awaitable[None]],
    *kinds: str,
    policy: Any = "step",
    folder: Path | None = None,
    **options: Any,
) -> None:
    """Run a test against the application, its worker and its bundles in this process."""
    settings = ServeSettings(bundles=kinds, warm_up=(), **options)
    bundles = {
        kind: folder / kind if folder else bundle_of(kind) for kind in kinds
    }  # exported, if they must be, before the clock runs

    async def run() -> None:
        pipelines = {kind: Pipeline.load(path, engine="onnxruntime", threads=1) for kind, path in bundles.items()}
        metrics = Metrics()
        worker = Worker(pipelines, policy=policy, watches=[metrics])
        metrics.follow(worker)
        app = create_app(Services(worker=worker, settings=settings, metrics=metrics))
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://it") as it:
            while (await it.get("/ready")).status_code != 200:
                await asyncio.sleep(0.01)
            await test(it)

    asyncio.run(asyncio.wait_for(run(), 600))


def test_a_worker_that_died(caplog: pytest.LogCaptureFixture) -> None:
    def broken(waiting: Any, active: Any, costs: Any, **options: Any) -> Any:
        raise RuntimeError("the policy is broken")

    async def test(client: httpx.AsyncClient) -> None:
        assert (await client.get("/health")).status_code == 200
        answer = await client.post("/v1/images/generations", json=BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "worker_died")
        for path in ("/health", "/ready"):
            answer = await client.get(path)
            assert answer.status_code == 503 and "the policy is broken" in answer.json()["error"]
        assert (await client.get("/live")).status_code == 200
        assert "sdengine:worker_alive 0.0" in (await client.get("/metrics")).text
        assert (await client.post("/v1/images/generations", json=BODY)).status_code == 503

    with caplog.at_level(logging.CRITICAL, "sdengine.serve"):
        with_app(test, "sd1", policy=broken)


def test_an_engine_that_fails_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(self: Batch) -> Any:
        raise EngineError("the device said no")

    async def test(client: httpx.AsyncClient) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Batch, "step", failing)
            for healthy in (200, 200, 503):
                answer = await client.post("/v1/images/generations", json=BODY)
                assert answer.status_code == 500 and "the device said no" in answer.text
                assert answer.headers["x-should-retry"] == "false"
                assert (await client.get("/health")).status_code == healthy
        assert (await client.post("/v1/images/generations", json=BODY)).status_code == 200
        assert (await client.get("/health")).status_code == 200

    with caplog.at_level(logging.CRITICAL, "sdengine.serve"):
        with_app(test, "sd1")


def test_two_bundles_at_once() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        bodies = [{**BODY, "model": ("sd1", "sdxl")[i % 2], "seed": i, "stream": i > 3} for i in range(6)]
        answers = await asyncio.gather(*[client.post("/v1/images/generations", json=body) for body in bodies])
        assert [answer.status_code for answer in answers] == [200] * 6
        assert [answer.json()["model"] for answer in answers[:4]] == ["sd1", "sdxl"] * 2
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == ["sd1", "sdxl"]
        assert (await client.post("/v1/images/generations", json=BODY)).json()["model"] == "sd1"  # the first

    with_app(test, "sd1", "sdxl", policy=step_level)


def test_a_name_with_a_slash() -> None:
    """As the Hub's names have one; clients send it as it is, or escaped."""

    async def test() -> None:
        pipeline = Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1)
        metrics = Metrics()
        worker = Worker({"org/sd1": pipeline}, watches=[metrics])
        metrics.follow(worker)
        settings = ServeSettings(bundles=("sd1",), served_model_name=("org/sd1",), warm_up=())
        app = create_app(Services(worker=worker, settings=settings, metrics=metrics))
        transport = httpx.ASGITransport(app)
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://it") as it:
            for name in ("org/sd1", "org%2Fsd1"):
                assert (await it.get(f"/v1/models/{name}")).json()["id"] == "org/sd1"
                assert (await it.get(f"/v1/models/{name}/fields")).json()["data"]
            assert (await it.get("/v1/models/org/other")).status_code == 404

    asyncio.run(asyncio.wait_for(test(), 60))


def test_a_bundle_that_is_removed_while_it_is_served(tmp_path: Path) -> None:
    """What can be said is said; the rest is an error with its reason."""

    async def test(it: httpx.AsyncClient) -> None:
        assert (await it.get("/v1/models/sd1")).status_code == 200
        shutil.rmtree(tmp_path / "sd1")
        assert (await it.get("/v1/models/sd1")).status_code == 200
        fields = await it.get("/v1/models/sd1/fields")
        assert (fields.status_code, fields.json()["error"]["code"]) == (500, "engine_error"), fields.text
        assert "cannot be read" in fields.json()["error"]["message"]

    shutil.copytree(bundle_of("sd1"), tmp_path / "sd1")
    with_app(test, "sd1", folder=tmp_path)


def test_pages_elsewhere_can_read_why_they_are_refused() -> None:
    async def test(it: httpx.AsyncClient) -> None:
        for origin, allowed in (("https://ok.example", "https://ok.example"), ("https://other.example", None)):
            answer = await it.get("/v1/models", headers={"origin": origin})
            assert answer.status_code == 401
            assert answer.headers.get("access-control-allow-origin") == allowed

    with_app(test, "sd1", api_keys=("sesame",), allowed_origins=("https://ok.example",))


def test_pages_elsewhere_cannot_generate_where_there_is_no_key() -> None:
    """A browser sends what needs no preflight for any page: a form, or a body without a type."""

    async def test(client: httpx.AsyncClient) -> None:
        for sent, status in (
            ({}, 200),
            ({"origin": "http://it"}, 200),  # the server's own page
            ({"origin": "https://public.example", "sec-fetch-site": "same-origin"}, 200),  # behind a proxy
            ({"origin": "https://ok.example", "sec-fetch-site": "cross-site"}, 200),
            ({"origin": "https://elsewhere.example"}, 403),
            ({"origin": "null"}, 403),
            ({"origin": "http://it:81", "sec-fetch-site": "same-site"}, 403),
        ):
            answer = await client.post("/v1/images/generations", json=BODY, headers=sent)
            assert answer.status_code == status, (sent, answer.text)
            if status == 403:
                assert answer.json()["error"]["code"] == "origin_not_allowed"
                assert "--allowed-origins" in answer.json()["error"]["message"]

    with_app(test, "sd1", allowed_origins=("https://ok.example",))


def test_probes_that_ask_for_headers_only() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        for path in ("/live", "/health", "/ready"):
            assert (await client.head(path)).status_code == 200

    with_app(test, "sd1")
