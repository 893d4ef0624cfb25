"""A pipeline's end: closed means closed, calls under way end first, and a forked process neither draws nor hangs."""

import subprocess
import sys
import threading
from typing import Any

import pytest
from sdengine.engines.errors import UsageError
from sdengine.runtime import Pipeline
from sdengine.runtime.denoise import Batch

from ..bundles import bundle_of

QUICK: dict[str, Any] = {"num_inference_steps": 3, "height": 32, "width": 32, "seed": 1}


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline.load(bundle_of("sd1"), engine="onnxruntime")


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_closed_pipeline_draws_nothing(low_memory: bool) -> None:
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", low_memory=low_memory) as pipeline:
        pipeline("a star", **QUICK)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"this pipeline is closed; open the bundle again with Pipeline\.load"):
            pipeline("a star", **QUICK)
        pipeline.close()
    assert not pipeline.components._open


def test_calls_under_way_end_before_it_is_closed(pipeline: Pipeline) -> None:
    begun, go_on = threading.Event(), threading.Event()
    done: list[Any] = []

    def wait(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        assert go_on.wait(60)
        return {}

    def draw() -> None:
        done.append(pipeline("a star", callback_on_step_end=wait, **QUICK))

    def close() -> None:
        pipeline.close()
        done.append("closed")

    threads = [threading.Thread(target=target) for target in (draw, close)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    threads[1].join(0.2)
    assert not done
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert "closed" in done
    [result] = [one for one in done if one != "closed"]
    assert len(result.images) == 1


def test_a_callback_may_close(pipeline: Pipeline) -> None:
    """Its own call ends as usual; the engines are released then."""

    def close(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe.close()
        return {}

    assert len(pipeline("a star", callback_on_step_end=close, **QUICK).images) == 1
    assert not pipeline.components._open
    with pytest.raises(UsageError, match="is closed"):
        pipeline("a star", **QUICK)


def test_an_exception_in_a_callback_leaves_the_pipeline_usable(pipeline: Pipeline) -> None:
    def fail(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        pipeline("a star", callback_on_step_end=fail, **QUICK)
    assert len(pipeline("a star", **QUICK).images) == 1
    pipeline.close()


FORK = """
import os, signal, sys, time
from sdengine.engines.errors import UsageError
from sdengine.runtime import Pipeline

with Pipeline.load(sys.argv[1], engine=sys.argv[2], precision="fp32") as pipeline:
    quick = {"num_inference_steps": 1, "height": 32, "width": 32}
    before = pipeline("a star", seed=1, **quick).images[0].tobytes()
    child = os.fork()
    if not child:
        try:
            pipeline("a star", **quick)
        except UsageError as error:
            assert "before the process forked" in str(error)
            sys.exit(7)
        sys.exit(1)
    deadline = time.monotonic() + 60
    status = 0, 0
    while not status[0]:
        assert time.monotonic() < deadline, "the child hangs"
        time.sleep(0.05)
        status = os.waitpid(child, os.WNOHANG)
    assert os.waitstatus_to_exitcode(status[1]) in (7, -signal.SIGALRM), status
    assert pipeline("a star", seed=1, **quick).images[0].tobytes() == before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_a_forked_process_does_not_draw_and_ends(engine: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(bundle_of("sd1")), engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr


def test_a_generator_that_nobody_goes_on_with_does_not_hold_up_closing(pipeline: Pipeline) -> None:
    steps = pipeline.denoise(pipeline.prepare(prompt="a star", **QUICK))
    thread = threading.Thread(target=next, args=(steps,))
    thread.start()
    thread.join(60)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    with pytest.raises(UsageError, match="this pipeline is closed"):
        next(steps)


def test_closing_waits_for_a_step_of_another_thread(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = Batch.step

    def step(batch: Batch) -> Any:
        begun.set()
        assert go_on.wait(60)
        return real(batch)

    monkeypatch.setattr(Batch, "step", step)
    steps = pipeline.denoise(pipeline.prepare(prompt="a star", **QUICK))
    done: list[Any] = []
    drawing = threading.Thread(target=lambda: done.append(next(steps)))
    drawing.start()
    assert begun.wait(60)
    closing = threading.Thread(target=pipeline.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive()
    go_on.set()
    for thread in (drawing, closing):
        thread.join(60)
    assert len(done) == 1


LEAVE = """
import sys, threading, time
from sdengine.runtime import Pipeline

pipeline = Pipeline.load(sys.argv[1], engine="onnxruntime")
begun = threading.Event()
endless = {"num_inference_steps": 500, "height": 128, "width": 128, "callback_on_step_end": lambda *_: begun.set()}

def call():
    pipeline("a star", **endless)

def steps():
    del endless["callback_on_step_end"]
    for _ in pipeline.denoise(pipeline.prepare(prompt="a star", **endless)):
        begun.set()

def batch():
    [sample] = pipeline.prepare(prompt="a star", num_inference_steps=500, height=128, width=128)
    with pipeline.batch(sample) as batch:
        batch.put(sample)
        while batch.active:
            batch.step()
            begun.set()

threading.Thread(target=locals()[sys.argv[2]], daemon=True).start()
assert begun.wait(60)
time.sleep(0.1)  # it is in the midst of an evaluation
"""


@pytest.mark.parametrize("what", ["call", "steps", "batch"])
def test_a_program_that_ends_while_a_daemon_thread_draws(what: str) -> None:
    command = [sys.executable, "-c", LEAVE, str(bundle_of("sd1")), what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stderr) == (0, "")
