"""The torch engine in device memory: its own code, with torch's CPU in the place of torch on a GPU."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.cuda.device import device_of
from sdengine.engines.eager import device_engine as on_device
from sdengine.engines.eager import open_torch
from sdengine.engines.engine import run
from sdengine.engines.errors import EngineError, EngineUnavailableError
from sdengine.runtime import Pipeline

from .counts import count
from .test_picture import SETTINGS, TASKS
from .test_plans_run import inputs_for
from .torch_on_cpu import StandinModule, StandinStream


@pytest.fixture(autouse=True)
def torch_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "TorchStream", StandinStream)
    monkeypatch.setattr(on_device, "Module", StandinModule)


@pytest.fixture(scope="module")
def expected(bundle: Path) -> Iterator[dict[str, Any]]:
    """Images of torch on the CPU."""
    with Pipeline.load(bundle, engine="torch", device="cpu") as pipe:
        yield {task: pipe("a red cube", **SETTINGS, **given).images for task, given in TASKS.items()}


def opened(path: Path, component: str, **options: Any) -> Any:
    return open_torch(Bundle(path), component, precision="fp32", device="cuda:0", **options)


@pytest.mark.parametrize("component", ["text_encoder", "conditioner", "denoiser", "vae_decoder"])
def test_host_buffers_go_there_and_back(bundle: Path, component: str) -> None:
    engine = opened(bundle, component)
    plain = open_torch(Bundle(bundle), component, precision="fp32", device="cpu")
    for seed in range(2):
        inputs = inputs_for(engine.spec, seed)
        actual, reference = run(engine, inputs), run(plain, inputs)
        assert all(np.array_equal(actual[name], reference[name]) for name in reference)
    assert engine.device == "cuda:0 (NVIDIA-Stand-in-4090)"
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="has been closed"):
        engine.prepare({}, {})


@pytest.mark.parametrize("cuda_graph", ["step", "loop", "off"])
def test_every_task_gives_the_same_picture(bundle: Path, expected: dict[str, Any], cuda_graph: str) -> None:
    captures, pools = count("captures"), sum(stream.pools for stream in StandinStream.made)
    with Pipeline.load(bundle, engine="torch", device="cuda:0", cuda_graph=cuda_graph, precision="fp32") as pipe:
        for _ in range(3):  # plain, captured, replayed
            for task, given in TASKS.items():
                result = pipe("a red cube", **SETTINGS, **given)
                assert np.array_equal(result.images, expected[task]), task
                assert set(result.engines.values()) == {"torch"} and result.fallbacks == () == result.warnings
    assert (count("captures") == captures) == (cuda_graph == "off")
    # What is allocated while a capture runs belongs to it.
    assert (sum(stream.pools for stream in StandinStream.made) == pools) == (cuda_graph == "off")


def test_steps_neither_wait_nor_bring_anything_back(bundle: Path) -> None:
    def cost(steps: int) -> list[int]:
        names = ("synchronised", "waited", "bytes_to_host")
        before = [count(name) for name in names]
        pipe("a red cube", **SETTINGS | {"num_inference_steps": steps, "output_type": "pil"})
        return [count(name) - n for name, n in zip(names, before, strict=True)]

    with Pipeline.load(bundle, engine="torch", device="cuda:0", cuda_graph="step") as pipe:
        pipe("a red cube", **SETTINGS)
        assert cost(12) == cost(3)


def test_threads_share_a_gpu(bundle: Path, expected: dict[str, Any]) -> None:
    with Pipeline.load(bundle, engine="torch", device="cuda:0") as pipe, ThreadPoolExecutor(2) as pool:
        tasks = [task for task in TASKS if task != "more than at once"] * 2
        images = pool.map(lambda task: pipe("a red cube", **SETTINGS, **TASKS[task]).images, tasks)
        for task, drawn in zip(tasks, images, strict=True):
            assert np.array_equal(drawn, expected[task]), task


def test_it_shares_memory_with_plans(bundle: Path, expected: dict[str, Any]) -> None:
    with Pipeline.load(bundle, engine="torch", device="cuda:0") as pipe:
        device = device_of(0)
        assert pipe.components.memory_of("denoiser", "vae_decoder") is device.memory
        device.release()


def test_what_is_not_there_is_said(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="no GPU 3"):
        open_torch(Bundle(bundle), "denoiser", device="cuda:3")
    monkeypatch.setattr(on_device, "no_gpu", lambda: "there is no driver")
    with pytest.raises(EngineUnavailableError, match="no driver"):
        opened(bundle, "denoiser")
