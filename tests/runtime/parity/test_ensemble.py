"""Base and refiner in one call, against the two calls of diffusers' documentation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.runtime import Pipeline
from sdengine.runtime.ensemble import Ensemble

from ...bundles import bundle_of
from ...engines.lora.networks import kohya_lora
from .oracle import DECIBELS, generators, oracle, ours, picture, psnr, their_warnings

PROMPTS: dict[str, Any] = {
    "prompt": ["a cat by the sea", "an old man with a hat"],
    "negative_prompt": ["blurry", "low quality"],
    "num_images_per_prompt": 2,
}
SEEDS = (1, 2, 3, 4)
SIZE: dict[str, Any] = {"height": 72, "width": 104}
IMAGE, MASK = picture(72, 104, 1), picture(72, 104, 0, hole=True)


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return Ensemble(ours("sdxl"), ours("sdxl_refiner"))


def theirs(pipeline: Any, generator: Any = None, **settings: Any) -> Any:
    with their_warnings():
        return pipeline(**settings, generator=generator or generators(*SEEDS)).images


def check(expected: Any, found: Any) -> None:
    assert expected.std() > 0.05
    decided = psnr(np.asarray(expected), np.asarray(found))
    assert decided >= DECIBELS, f"{decided:.1f} dB"


@pytest.mark.parametrize("split", [0.6, 0.8])
def test_text(ensemble: Ensemble, split: float) -> None:
    settings = {**PROMPTS, "num_inference_steps": 10}
    base, refiner = oracle("sdxl", "text"), oracle("sdxl_refiner", "image")
    latents = theirs(base, **settings, **SIZE, denoising_end=split, output_type="latent")
    expected = theirs(refiner, **settings, image=latents, denoising_start=split, output_type="np")
    result = ensemble(**settings, **SIZE, denoising_split=split, seed=SEEDS, output_type="np")
    check(expected, result.images)
    assert result.engines["base.denoiser"] == result.engines["denoiser"] == "onnxruntime"
    assert result.seeds == SEEDS


def test_one_after_the_other(ensemble: Ensemble) -> None:
    settings = {**PROMPTS, "num_inference_steps": 6}
    base, refiner = oracle("sdxl", "text"), oracle("sdxl_refiner", "image")
    latents = theirs(base, **settings, **SIZE, output_type="latent")
    expected = theirs(refiner, **settings, image=latents, strength=0.5, aesthetic_score=7.0, output_type="np")
    given = {"strength": 0.5, "aesthetic_score": 7.0}
    result = ensemble(**settings, **SIZE, denoising_split=None, refiner_settings=given, seed=SEEDS, output_type="np")
    check(expected, result.images)


@pytest.mark.parametrize("kind", ["sdxl", "sdxl_inpaint"])
def test_inpainting(kind: str) -> None:
    settings: dict[str, Any] = {**PROMPTS, **SIZE, "mask_image": MASK, "num_inference_steps": 10}
    base, refiner = oracle(kind, "inpaint"), oracle("sdxl_refiner", "inpaint")
    shared = generators(*SEEDS)
    latents = theirs(base, shared, **settings, image=IMAGE, denoising_end=0.7, output_type="latent")
    expected = theirs(refiner, shared, **settings, image=latents, denoising_start=0.7, output_type="np")
    pair = Ensemble(ours(kind), ours("sdxl_refiner"))
    result = pair(**settings, image=IMAGE, denoising_split=0.7, generator=generators(*SEEDS), output_type="np")
    check(expected, result.images)


def test_the_refiner_draws(ensemble: Ensemble) -> None:
    settings: dict[str, Any] = {"prompt": "a house", "seed": 3, "num_inference_steps": 5, "output_type": "np"}
    split = ensemble(**settings, denoising_split=0.5).images
    assert np.abs(split - ours("sdxl")(**settings).images).max() > 0.02
    other = ensemble(**settings, denoising_split=0.5, refiner_settings={"aesthetic_score": 1.0}).images
    assert np.abs(split - other).max() > 1e-4


def test_chosen_seeds_are_told(ensemble: Ensemble) -> None:
    settings: dict[str, Any] = {"prompt": "a house", "num_inference_steps": 4, "output_type": "np"}
    chosen = ensemble(**settings, denoising_split=None)
    again = ensemble(**settings, denoising_split=None, seed=chosen.seeds)
    assert np.array_equal(chosen.images, again.images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"denoising_split": 1.0}, "must lie between 0 and 1"),
        ({"denoising_end": 0.5}, "denoising_split divides"),
        ({"promt": "x"}, "did you mean 'prompt'"),
        ({"refiner_settings": {"strenght": 0.5}}, "did you mean 'strength'"),
        ({"refiner_settings": {"strength": 0.5}}, "were both given"),
        ({"prompt": None, "prompt_embeds": torch.zeros(1, 77, 56)}, "do not fit the refiner"),
    ],
)
def test_bad_input(ensemble: Ensemble, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ensemble(**{"prompt": "a", **settings})


def test_other_families_are_refused() -> None:
    with pytest.raises(UsageError, match="is an SDXL bundle, not one of the family sd1"):
        Ensemble(ours("sd1"), ours("sdxl_refiner"))


def test_loras_are_the_base_s(tmp_path: Path) -> None:
    """By argument or by tag, which the refiner does not read as text; the result names them."""
    kohya_lora("sdxl", tmp_path / "a.safetensors", size=0.15)
    opening: dict[str, Any] = {"engine": "onnxruntime", "threads": 1}
    with (
        Pipeline.load(bundle_of("sdxl"), **opening, lora_folder=tmp_path) as base,
        Pipeline.load(bundle_of("sdxl_refiner"), **opening) as refiner,
    ):
        both = Ensemble(base, refiner)
        settings: dict[str, Any] = {"num_inference_steps": 3, "height": 64, "width": 64, "seed": 1, "output_type": "np"}
        plain = both("a cat", **settings)
        named = both("a cat", loras=[("a", 0.5)], **settings)
        tagged = both("a cat <lora:a:0.5>", **settings)
    assert not plain.loras and [(lora["name"], lora["strength"]) for lora in tagged.loras] == [("a", 0.5)]
    assert tagged.warnings == named.warnings and named.timings_ms.loras > 0
    assert np.array_equal(tagged.images, named.images) and not np.array_equal(named.images, plain.images)
