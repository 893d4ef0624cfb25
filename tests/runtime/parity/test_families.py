"""Every family and task draws diffusers' picture, at sizes that were not traced, several images per prompt."""

from typing import Any

import pytest

from .oracle import agree, picture

PROMPTS: dict[str, Any] = {
    "prompt": ["a cat by the sea", "an old man with a hat"],
    "negative_prompt": ["blurry", "low quality"],
    "num_images_per_prompt": 2,
    "seeds": (1, 2, 3, 4),
}
ONE: dict[str, Any] = {"prompt": "a small red house by the sea", "num_images_per_prompt": 2, "seeds": 9}
IMAGES = [picture(72, 104, 1), picture(72, 104, 2)]
MASKS = [picture(72, 104, 0, hole=True), picture(72, 104, 1, hole=True)]
ORDINARY = ["sd1", "sd2", "sdxl"]


@pytest.mark.parametrize("kind", ORDINARY)
@pytest.mark.parametrize("size", [(72, 104), (128, 40)])
def test_text(kind: str, size: tuple[int, int]) -> None:
    agree(kind, **PROMPTS, height=size[0], width=size[1], num_inference_steps=4)


@pytest.mark.parametrize("kind", [*ORDINARY, "sdxl_refiner"])
def test_image(kind: str) -> None:
    agree(kind, **PROMPTS, image=IMAGES, strength=0.7, num_inference_steps=6)


@pytest.mark.parametrize("kind", ["sd1", "sdxl_refiner"])
def test_one_image_and_one_generator_for_all(kind: str) -> None:
    agree(kind, **ONE, image=picture(61, 83), strength=0.7, num_inference_steps=6)


@pytest.mark.parametrize("kind", [*ORDINARY, "sdxl_refiner"])
def test_inpainting_by_blending(kind: str) -> None:
    size = {"height": 72, "width": 104}
    agree(kind, **PROMPTS, **size, image=IMAGES, mask_image=MASKS, strength=0.7, num_inference_steps=6)


@pytest.mark.parametrize("kind", ["sd_inpaint", "sdxl_inpaint"])
@pytest.mark.parametrize("strength", [0.7, 0.9999, 1.0])
def test_inpainting_with_nine_channels(kind: str, strength: float) -> None:
    size = {"height": 48, "width": 80}
    agree(kind, **PROMPTS, **size, image=IMAGES, mask_image=MASKS, strength=strength, num_inference_steps=5)


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sd_inpaint", "sdxl_inpaint"])
@pytest.mark.parametrize("seeds", [(1, 2), 9])
def test_inpainting_one_picture_several_times(kind: str, seeds: Any) -> None:
    """diffusers then encodes the picture once, with the first generator."""
    settings = {**ONE, "seeds": seeds, "height": 40, "width": 64, "num_inference_steps": 4}
    agree(kind, **settings, image=IMAGES[0], mask_image=MASKS[0])


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_inpainting_with_the_default_strength_and_size(kind: str) -> None:
    agree(kind, prompt="a house", seeds=(3,), image=IMAGES[0], mask_image=MASKS[0], num_inference_steps=4)


def test_text_with_a_distilled_model() -> None:
    settings = {"prompt": PROMPTS["prompt"], "num_images_per_prompt": 2, "seeds": (1, 2, 3, 4)}
    agree("lcm", **settings, height=72, width=104)
    agree("lcm", **settings, height=72, width=104, original_inference_steps=100, guidance_scale=3.0)


@pytest.mark.parametrize("given", [{}, {"strength": 0.45, "original_inference_steps": 90}])
def test_image_with_a_distilled_model(given: dict[str, Any]) -> None:
    agree("lcm", prompt=PROMPTS["prompt"], num_images_per_prompt=2, seeds=(1, 2, 3, 4), image=IMAGES, **given)


def test_inpainting_with_a_distilled_model() -> None:
    settings = {"prompt": "a house", "seeds": (1,), "image": IMAGES[0], "mask_image": MASKS[0]}
    agree("lcm", **settings, height=72, width=104, strength=0.7, num_inference_steps=6)


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sdxl_refiner"])
def test_torch_engine(kind: str) -> None:
    agree(kind, **PROMPTS, engine="torch", image=IMAGES, strength=0.7, num_inference_steps=4)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_seeds_are_generators(kind: str) -> None:
    """Seeds give each image what it is given by a generator of its own."""
    agree(kind, **PROMPTS, by_seed=True, height=72, width=104, num_inference_steps=3)
    agree(kind, **PROMPTS, by_seed=True, image=IMAGES, strength=0.7, num_inference_steps=4)
