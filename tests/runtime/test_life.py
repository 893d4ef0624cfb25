"""A pipeline's end: closed means closed, calls under way end first, and a forked process neither draws nor hangs."""

import subprocess
import sys
import threading
from typing import Any

import pytest
from sdengine.engines.errors import UsageError
from sdengine.runtime import Pipeline

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
