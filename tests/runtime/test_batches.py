"""Images of a batch do not know of each other; memory can be saved; guidance costs rows only where it works."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sdengine.engines.errors import UsageError
from sdengine.runtime import Pipeline
from sdengine.runtime.denoise.guidance import guidance_for

from ..bundles import bundle_of
from .parity.oracle import agree, ours, picture, psnr

IMAGE, MASK = picture(48, 72, 1), picture(48, 72, 0, hole=True)
SIZE = {"height": 48, "width": 72}
TASKS: dict[str, dict[str, Any]] = {
    "text": {},
    "image": {"image": IMAGE, "strength": 0.7},
    "inpaint": {"image": IMAGE, "mask_image": MASK, "strength": 0.7},
}
ANCESTRAL = {"scheduler": "EulerAncestralDiscreteScheduler", "num_inference_steps": 4, "output_type": "np"}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_batch_is_its_single_runs(kind: str, task: str) -> None:
    """Five images, of which the bundle draws four at once."""
    pipe, seeds = ours(kind), [11, 0, 2**40, 7, 8]
    settings = {**TASKS[task], **ANCESTRAL, **(SIZE if task != "image" else {})}
    batch = pipe("a house by the sea", num_images_per_prompt=5, seed=seeds, **settings)
    assert batch.seeds == tuple(seeds)
    for image, seed in zip(batch.images, seeds, strict=True):
        assert psnr(image, pipe("a house by the sea", seed=seed, **settings).images[0]) > 100


def test_prompts_and_sizes_of_a_batch() -> None:
    pipe, prompts = ours("sdxl"), ["a cat", "mountains under the stars"]
    sizes = {"negative_original_size": (3, 4), "negative_target_size": (100, 7)}
    settings: dict[str, Any] = {**SIZE, **sizes, "num_inference_steps": 3, "output_type": "np"}
    batch = pipe(prompts, num_images_per_prompt=2, seed=5, **settings)
    assert batch.seeds == (5, 6, 7, 8)
    for i, image in enumerate(batch.images):
        assert psnr(image, pipe(prompts[i // 2], seed=5 + i, **settings).images[0]) > 100


def test_a_list_of_seeds_says_how_many_images_there_are() -> None:
    pipe, settings = ours("sd1"), {**SIZE, "num_inference_steps": 2}
    assert [sample.seed for sample in pipe.prepare("a cat", seed=[3, 1], **settings)] == [3, 1]
    prompts = ["a cat", "stars"]
    samples = pipe.prepare(prompts, seed=range(4), **settings)
    assert [sample.seed for sample in samples] == [0, 1, 2, 3]
    several = pipe.prepare(prompts, num_images_per_prompt=2, seed=range(4), **settings)
    texts, expected = ([sample.inputs["denoiser"] for sample in batch] for batch in (samples, several))
    for found, other in zip(texts, expected, strict=True):
        assert all(np.array_equal(found[name], other[name]) for name in other)
    assert len(pipe.prepare(prompts, seed=[3, 1], **settings)) == 2
    with pytest.raises(UsageError, match="3 seeds for 2 images"):
        pipe.prepare(prompts, seed=[1, 2, 3], **settings)


def test_one_generator_for_more_images_than_run_at_once() -> None:
    """diffusers draws the noise of all six together, at every step."""
    settings: dict[str, Any] = {"prompt": "a house", "num_images_per_prompt": 6, "num_inference_steps": 3, "seeds": 4}
    agree("sd1", **settings, **SIZE, scheduler="EulerAncestralDiscreteScheduler")


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_without_guidance_there_is_one_row_per_sample(scale: float) -> None:
    pipe, rows = ours("sdxl"), []
    pipe._loras.current.generation.denoising.close()  # what earlier requests have bound
    with pipe.components.use("denoiser") as (engine,):
        prepare = engine.prepare

        def watched(inputs: Any, outputs: Any) -> Any:
            rows.append((len(inputs["row_sample"]), inputs["state"].shape[0]))
            return prepare(inputs, outputs)

        engine.prepare = watched  # type: ignore[method-assign]
        try:
            pipe("a house", guidance_scale=scale, num_images_per_prompt=3, num_inference_steps=2)
            pipe("a house", guidance_scale=2.0, num_images_per_prompt=3, num_inference_steps=2)
        finally:
            del engine.prepare
    assert set(rows[: len(rows) // 2]) == {(3, 3)}
    assert set(rows[len(rows) // 2 :]) == {(6, 3)}


def test_guidance_matrix() -> None:
    guided = guidance_for(3.0, evaluations=2, rescale=0.5, guided=True)
    rows = np.array([10.0, 1.0])
    assert (guided.mix @ rows).tolist() == [10 + 3 * (1 - 10)] * 2
    assert (guided.rescale @ rows).tolist() == [0.5] * 2
    positive, negative = np.array([[1.0], [2.0]], np.float32), np.array([[10.0], [20.0]], np.float32)
    assert guided.by_row(positive, negative).ravel().tolist() == [10, 1, 20, 2]
    plain = guidance_for(3.0, evaluations=2, rescale=0.5, guided=False)
    assert plain.rows == 1 and plain.mix.tolist() == [[1], [1]] and not plain.rescale.any()
    assert plain.by_row(positive, negative).ravel().tolist() == [1, 2]


def test_low_memory_opens_one_component_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {**SIZE, "image": IMAGE, "mask_image": MASK, "num_inference_steps": 3, "seed": 1}
    expected = ours("sdxl")("a house", **settings, output_type="np").images
    with Pipeline.load(bundle_of("sdxl"), engine="onnxruntime", low_memory=True, threads=1) as pipe:
        opened: list[tuple[str, ...]] = []
        get = pipe.components._get

        def watched(name: str) -> Any:
            engine = get(name)
            opened.append(tuple(pipe.components._open))
            return engine

        monkeypatch.setattr(pipe.components, "_get", watched)
        found = pipe("a house", **settings, output_type="np").images
        assert not pipe.components._open
    assert np.array_equal(expected, found)
    assert {name for (name,) in opened} >= {"text_encoder", "conditioner", "denoiser", "vae_encoder", "vae_decoder"}


def test_the_same_bundle_draws_all_tasks_again_and_again() -> None:
    pipe = ours("sd1")
    settings: dict[str, Any] = {"num_inference_steps": 2, "seed": 1, "output_type": "np", "height": 48, "width": 72}
    first = pipe("a", **settings).images
    pipe("b", image=IMAGE, num_inference_steps=2)
    pipe("c", image=IMAGE, mask_image=MASK, **settings)
    assert np.array_equal(first, pipe("a", **settings).images)


@pytest.mark.parametrize("options", [{}, {"low_memory": True}], ids=["kept open", "low memory"])
def test_requests_of_several_threads_do_not_disturb_each_other(options: dict[str, Any]) -> None:
    requests: list[dict[str, Any]] = [
        {"prompt": f"a house {i}", "seed": i, "height": 48, "width": 48 + 24 * (i % 2), "guidance_scale": 1.0 + i % 3}
        for i in range(6)
    ]
    requests[4] |= {"image": IMAGE, "mask_image": MASK}
    requests[5] |= {"scheduler": "EulerAncestralDiscreteScheduler"}
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1, **options) as pipe:

        def draw(request: dict[str, Any]) -> Any:
            return pipe(**request, num_inference_steps=3, output_type="np").images

        one_by_one = [draw(request) for request in requests]
        with ThreadPoolExecutor(4) as pool:
            at_once = list(pool.map(draw, requests * 2))
    assert all(np.array_equal(a, b) for a, b in zip(one_by_one * 2, at_once, strict=True))
