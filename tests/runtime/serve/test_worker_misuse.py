"""A worker that is used in a wrong way says so, and nobody else's request suffers or waits for ever."""

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from sdengine.engines.errors import UsageError
from sdengine.runtime import Pipeline
from sdengine.runtime.serve import CancelledError, ClosedError, Worker

from ...bundles import bundle_of
from .test_worker import LONG, SHORT


def opened() -> Pipeline:
    return Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1)


@pytest.fixture
def worker() -> Iterator[Worker]:
    one = Worker(opened())
    one.start()
    yield one
    one.close()


@pytest.mark.parametrize(
    "options", [{"max_num_seqs": 0}, {"max_num_queued": 0}, {"max_num_queued": "x"}, {"policy": 5}, {"policy": "stpe"}]
)
def test_arguments_that_cannot_be_met(options: dict[str, Any]) -> None:
    with opened() as pipeline, pytest.raises(UsageError, match=next(iter(options))):
        Worker(pipeline, **options)


@pytest.mark.parametrize("pipelines", ["bundles/sdxl", {}, {"a": "bundles/sdxl"}, None])
def test_what_is_no_pipeline(pipelines: Any) -> None:
    with pytest.raises(UsageError, match="takes a Pipeline"):
        Worker(pipelines)


def test_what_submit_refuses_harms_no_other_request(worker: Worker) -> None:
    other = worker.submit(**LONG)
    for name, value in (
        ("priority", "x"),
        ("priority", None),
        ("previews", "x"),
        ("previews", None),
        ("timeout", "x"),
        ("timeout", float("nan")),
        ("timeout", 0),
    ):
        with pytest.raises(UsageError, match=f"{name}="):
            worker.submit(**{**SHORT, name: value})
    assert len(worker.submit(**SHORT).future.result(timeout=60).images) == 1
    assert worker.status().alive and not other.done


def test_a_watch_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def stepped(self, *_: Any) -> None:
            raise RuntimeError("stepped")

        def staged(self, *_: Any) -> None:
            raise RuntimeError("staged")

        def ended(self, *_: Any) -> None:
            raise RuntimeError("ended")

    async def test() -> None:
        async with Worker(opened(), watches=[Failing()]) as worker:
            tickets = [worker.submit(**SHORT) for _ in range(2)]
            assert [len((await ticket.result()).images) for ticket in tickets] == [1, 1]

    with caplog.at_level(logging.CRITICAL, "sdengine.serve"):
        asyncio.run(asyncio.wait_for(test(), 60))


def test_it_is_started_once_and_closed_from_outside(worker: Worker) -> None:
    with pytest.raises(UsageError, match="runs already"):
        worker.start()
    with pytest.raises(UsageError, match="own thread"):
        worker.call(worker.close).result(timeout=60)
    assert len(worker.submit(**SHORT).future.result(timeout=60).images) == 1
    worker.close()
    worker.close()
    with pytest.raises(ClosedError, match="make another one"):
        worker.start()


def test_closed_before_it_was_started() -> None:
    worker = Worker(opened())
    ticket = worker.submit(**SHORT)
    worker.close()
    with pytest.raises(ClosedError):
        ticket.future.result(timeout=60)
    assert worker.status().waiting == 0


def test_to_cancel_the_future_frees_the_slot() -> None:
    async def test() -> None:
        async with Worker(opened()) as worker:
            ticket = worker.submit(**LONG)
            while worker.status().active == 0:
                await asyncio.sleep(0.001)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(ticket.future), 0.01)
            assert await worker.idle(60)
            assert worker.status().active == 0 and worker.costs.table()
            with pytest.raises(CancelledError):
                await ticket.result()

    asyncio.run(asyncio.wait_for(test(), 60))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_program_that_forks_or_ends_without_closing() -> None:
    """In a process of its own: the child is refused, and the parent ends in order with a request under way."""
    program = f"""
import os
from sdengine.runtime import Pipeline
from sdengine.runtime.serve import Worker
worker = Worker(Pipeline.load({str(bundle_of("sd1"))!r}, engine="onnxruntime", threads=1))
worker.start()
request = dict(prompt="a", height=48, width=72)
worker.submit(num_inference_steps=1, **request).future.result(timeout=60)
if (child := os.fork()) == 0:
    try:
        worker.submit(num_inference_steps=1, **request)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    worker.close()
    os._exit(0)
os.waitpid(child, 0)
left = worker.submit(num_inference_steps=200, **request)
while worker.status().active == 0:
    pass
print("leaving", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    first, second = done.stdout.splitlines()
    assert first.startswith("ClosedError this process was forked") and second == "leaving"
