"""The pipeline draws through plans what it draws without them, and gives the device work without waiting for it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sdengine.engines.errors import EngineError, NonFiniteError, UsageError
from sdengine.runtime import Pipeline

from .counts import count
from .plans import with_plans

SETTINGS: dict[str, Any] = {"height": 64, "width": 96, "num_inference_steps": 3, "seed": 5, "output_type": "np"}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8))
MASK = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), ((8, 24), (40, 24))))
TASKS: dict[str, dict[str, Any]] = {
    "text": {},
    "one row": {"guidance_scale": 1.0},
    "noise at each step": {"scheduler": "EulerAncestralDiscreteScheduler"},
    "two evaluations a step": {"scheduler": "HeunDiscreteScheduler"},
    "image": {"image": PICTURE, "strength": 0.7},
    "inpainting": {"image": PICTURE, "mask_image": MASK, "strength": 0.9},
    "several": {"num_images_per_prompt": 3},
    "more than at once": {"num_images_per_prompt": 5},
}


@pytest.fixture(scope="module")
def expected(bundle: Path) -> Iterator[dict[str, Any]]:
    with Pipeline.load(bundle, engine="onnxruntime", threads=1) as pipe:
        yield {task: pipe("a red cube", **SETTINGS, **given).images for task, given in TASKS.items()}


@pytest.mark.parametrize("cuda_graph", ["step", "loop", "off"])
def test_every_task_gives_the_same_picture(bundle: Path, expected: dict[str, Any], cuda_graph: str) -> None:
    with Pipeline.load(bundle, engine="tensorrt", cuda_graph=cuda_graph) as pipe:
        for _ in range(3):  # plain, captured, replayed
            for task, given in TASKS.items():
                found = pipe("a red cube", **SETTINGS, **given)
                assert np.array_equal(found.images, expected[task]), task
                assert set(found.engines.values()) == {"tensorrt"} and found.fallbacks == () == found.warnings
                loops = -(-len(found.images) // 2)
                evaluations = len(found.timings_ms.steps)
                assert evaluations == loops if cuda_graph == "loop" else evaluations >= 2 * loops


@pytest.mark.parametrize("cuda_graph", ["step", "loop"])
def test_two_threads_share_a_gpu(bundle: Path, expected: dict[str, Any], cuda_graph: str) -> None:
    with Pipeline.load(bundle, engine="tensorrt", cuda_graph=cuda_graph) as pipe, ThreadPoolExecutor(2) as pool:
        tasks = [task for task in TASKS if task != "more than at once"] * 3
        found = pool.map(lambda task: pipe("a red cube", **SETTINGS, **TASKS[task]).images, tasks)
        for task, images in zip(tasks, found, strict=True):
            assert np.array_equal(images, expected[task]), task


def test_the_second_picture_allocates_nothing(bundle: Path) -> None:
    for cuda_graph in ("step", "loop"):
        with Pipeline.load(bundle, engine="tensorrt", cuda_graph=cuda_graph) as pipe:
            for prompt in ("a red cube", "a green cube"):  # the negative prompt is encoded with the first one only
                for _ in range(2):
                    pipe(prompt, **SETTINGS)
            made, alive = count("allocated"), count("device_alive")
            for seed in range(3):
                pipe("a blue cube", **SETTINGS | {"seed": seed})
            assert (count("allocated"), count("device_alive")) == (made, alive)


def test_steps_neither_wait_nor_bring_anything_back(bundle: Path) -> None:
    def cost(steps: int) -> tuple[int, int, int]:
        names = ("synchronised", "waited", "bytes_to_host")
        before = [count(name) for name in names]
        pipe("a red cube", **SETTINGS | {"num_inference_steps": steps, "output_type": "pil"})
        synchronised, waited, brought = (count(name) - n for name, n in zip(names, before, strict=True))
        return synchronised, waited, brought

    with Pipeline.load(bundle, engine="tensorrt", cuda_graph="step") as pipe:
        cost(2)
        few, many = cost(4), cost(40)
    assert few == many
    texts = 2 * (77 * 32 + 32) * 4  # what the text encoder gives for two prompts
    assert many[2] <= 64 * 96 * 3 + texts + 64, "pixels leave the device once, as bytes"


def test_a_recorded_loop_is_one_launch(bundle: Path) -> None:
    with Pipeline.load(bundle, engine="tensorrt", cuda_graph="loop") as pipe:
        for _ in range(2):
            pipe("a red cube", **SETTINGS)
        launches, captures = count("launches"), count("captures")
        pipe("a green cube", **SETTINGS | {"guidance_scale": 3.0, "seed": 8})
        assert count("launches") == launches + 1 and count("captures") == captures


def test_a_callback_sees_and_changes_every_step(bundle: Path) -> None:
    seen: dict[str, list[Any]] = {}

    def halved(name: str) -> Any:
        def callback(_: Any, i: int, t: float, given: dict[str, Any]) -> dict[str, Any]:
            seen.setdefault(name, []).append(given["latents"].copy())
            return {"latents": given["latents"] * 0.5} if i == 1 else {}

        return callback

    pictures = {}
    for engine, options in (("onnxruntime", {"threads": 1}), ("tensorrt", {}), ("tensorrt", {"cuda_graph": "loop"})):
        name = engine + str(options)
        with Pipeline.load(bundle, engine=engine, **options) as pipe:
            result = pipe("a red cube", **SETTINGS, callback_on_step_end=halved(name))
        pictures[name] = result.images
        assert ("callback_on_step_end" in " ".join(result.warnings)) == ("cuda_graph" in options)
    first, *others = seen.values()
    assert all(np.array_equal(first, other) for other in others)
    wanted, *found = pictures.values()
    assert all(np.array_equal(wanted, other) for other in found)


def test_low_memory_keeps_nothing_on_the_device(bundle: Path, expected: dict[str, Any]) -> None:
    with Pipeline.load(bundle, engine="tensorrt", low_memory=True) as pipe:
        for task in ("text", "inpainting"):
            assert np.array_equal(pipe("a red cube", **SETTINGS, **TASKS[task]).images, expected[task])
            assert count("device_alive") == count("contexts") == 0


@pytest.mark.parametrize("cuda_graph", ["step", "loop"])
def test_controlnets(tmp_path: Path, cuda_graph: str) -> None:
    path = with_plans("sd1", tmp_path, sizes=((64, 96),), controlnets=2)
    settings: dict[str, Any] = {**SETTINGS, "num_inference_steps": 4, "control_image": [PICTURE, PICTURE]}
    settings |= {"controlnet_conditioning_scale": [0.7, 0.4], "control_guidance_end": [0.5, 0.8]}
    with Pipeline.load(path, engine="onnxruntime", threads=1) as pipe:
        wanted = [pipe("a", **settings, guess_mode=guess).images for guess in (False, True)]
        plain = pipe("a", **SETTINGS).images
    with Pipeline.load(path, engine="tensorrt", cuda_graph=cuda_graph) as pipe:
        for _ in range(3):
            for guess in (False, True):
                assert np.array_equal(pipe("a", **settings, guess_mode=guess).images, wanted[guess])
            assert np.array_equal(pipe("a", **SETTINGS).images, plain)


def test_a_component_without_a_plan_is_drawn_elsewhere(tmp_path: Path, expected: dict[str, Any]) -> None:
    """Engines that do not share their memory meet on the host."""
    path = with_plans("sd1", tmp_path, sizes=((64, 96),), without=("vae_decoder", "conditioner"))
    with Pipeline.load(path, engine="tensorrt", fallback="allow") as pipe:
        found = pipe("a red cube", **SETTINGS)
    # ONNX Runtime's graph is fused otherwise than the plans' stand-in; 1.24 rounds them apart by some 1e-6.
    assert np.allclose(found.images, expected["text"], rtol=0, atol=2e-5)
    assert found.engines["denoiser"] == "tensorrt" != found.engines["vae_decoder"]
    assert {f.component for f in found.fallbacks} == {"vae_decoder", "conditioner"}


def test_overflow_is_blamed_on_the_denoiser(bundle: Path) -> None:
    with (
        Pipeline.load(bundle, engine="tensorrt") as pipe,
        pytest.raises(NonFiniteError, match="the denoiser produced NaN or infinity on tensorrt"),
    ):
        pipe("a", **SETTINGS, latents=np.full((1, 4, 8, 12), 1e38, np.float32))


def test_options_that_cannot_be_met_are_refused_or_said(bundle: Path) -> None:
    with pytest.raises(UsageError, match="tensorrt has no option threads; it is for openvino, onnxruntime"):
        Pipeline.load(bundle, engine="tensorrt", threads=2)
    with pytest.raises(UsageError, match="tensorrt runs on cuda, not on cpu"):
        Pipeline.load(bundle, engine="tensorrt", device="cpu")
    with pytest.raises(UsageError, match="onnxruntime runs on cpu, not on cuda:0"):
        Pipeline.load(bundle, engine="onnxruntime", device="cuda:0")
    with pytest.raises(UsageError, match="device='cuda:x' is none of cpu, cuda and cuda:N"):
        Pipeline.load(bundle, engine="tensorrt", device="cuda:x")
    with pytest.raises(UsageError, match="cuda_graph='all' is none of step, loop, off"):
        Pipeline.load(bundle, engine="tensorrt", cuda_graph="all")
    with pytest.raises(EngineError, match="there is no GPU 1 here"):
        Pipeline.load(bundle, engine="tensorrt", device="cuda:1")
    with Pipeline.load(bundle, threads=2, device="cuda:0") as pipe:
        result = pipe("a red cube", **SETTINGS)
        assert set(result.engines.values()) == {"tensorrt"}
        assert "threads is of no use to tensorrt, which runs denoiser" in result.warnings
    with Pipeline.load(bundle, device="cpu") as pipe:
        assert pipe.components.ran["denoiser"] in ("openvino", "onnxruntime")
