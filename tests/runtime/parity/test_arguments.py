"""Arguments that shape the picture without changing the task: sizes, scores, latents, guidance, callbacks."""

from typing import Any

import numpy as np
import pytest
import torch

from .oracle import agree, oracle, ours, picture, psnr

PROMPTS: dict[str, Any] = {
    "prompt": ["a cat by the sea", "an old man with a hat"],
    "negative_prompt": ["blurry", "low quality"],
    "num_images_per_prompt": 2,
    "seeds": (1, 2, 3, 4),
}
SIZE = {"height": 72, "width": 104}
IMAGES = [picture(72, 104, 1), picture(72, 104, 2)]
MASKS = [picture(72, 104, 0, hole=True), picture(72, 104, 1, hole=True)]
LATENTS = torch.randn(4, 4, 9, 13, generator=torch.Generator().manual_seed(1))
CONDITIONS: dict[str, Any] = {
    "original_size": (200, 120),
    "crops_coords_top_left": (3, 9),
    "target_size": (90, 70),
    "negative_original_size": (50, 60),
    "negative_crops_coords_top_left": (7, 2),
    "negative_target_size": (33, 44),
}


@pytest.mark.parametrize("left_out", [None, "negative_target_size"])
def test_sizes_of_text_to_image(left_out: str | None) -> None:
    given = {name: value for name, value in CONDITIONS.items() if name != left_out}
    result = agree("sdxl", **PROMPTS, **SIZE, **given, num_inference_steps=3)
    assert len(result.warnings) == (0 if left_out is None else 2)


def test_sizes_of_image_tasks() -> None:
    given = {**PROMPTS, **CONDITIONS, "num_inference_steps": 6}
    result = agree("sdxl", **given, image=IMAGES)
    assert [w for w in result.warnings if w.startswith("negative_crops_coords_top_left has no effect")]
    agree("sdxl", **given, **SIZE, image=IMAGES, mask_image=MASKS)


def test_aesthetic_scores() -> None:
    given = {"aesthetic_score": 7.5, "negative_aesthetic_score": 1.0, "num_inference_steps": 8}
    sizes = {name: value for name, value in CONDITIONS.items() if "target" not in name}
    agree("sdxl_refiner", **PROMPTS, **given, **sizes, image=IMAGES)


def test_guidance_rescale_and_clip_skip() -> None:
    agree("sdxl", **PROMPTS, **SIZE, guidance_rescale=0.7, clip_skip=1, guidance_scale=9.0, num_inference_steps=3)
    agree("sd1", **PROMPTS, **SIZE, guidance_rescale=0.7, guidance_scale=9.0, num_inference_steps=3)


def test_second_prompts() -> None:
    second: dict[str, Any] = {"prompt_2": ["stars", "a red house"], "negative_prompt_2": ["night", "rain"]}
    agree("sdxl", **PROMPTS, **SIZE, **second, num_inference_steps=3)


def test_prompt_embeddings() -> None:
    reference = oracle("sdxl", "text")
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    embeddings = dict(zip(names, reference.encode_prompt("a cat", "mountains", negative_prompt="rain"), strict=True))
    agree("sdxl", **embeddings, **SIZE, seeds=(1, 2), num_images_per_prompt=2, num_inference_steps=3)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_latents_in_and_out(kind: str) -> None:
    agree(kind, **PROMPTS, **SIZE, latents=LATENTS, output_type="latent", num_inference_steps=3)


def test_latents_in_place_of_the_noised_picture() -> None:
    agree("sdxl", **PROMPTS, image=IMAGES, latents=LATENTS, num_inference_steps=6)


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "sdxl_inpaint"])
def test_latents_for_inpainting(kind: str) -> None:
    settings = {**PROMPTS, **SIZE, "image": IMAGES, "mask_image": MASKS, "num_inference_steps": 6}
    agree(kind, **settings, latents=LATENTS, strength=0.7)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_image_given_as_latents(count: int) -> None:
    agree("sdxl", **PROMPTS, image=LATENTS[:count], num_inference_steps=6)
    agree("sdxl", **PROMPTS, **SIZE, image=LATENTS[:count], mask_image=MASKS, num_inference_steps=4)


def test_masked_image_given_as_latents() -> None:
    settings = {**PROMPTS, **SIZE, "mask_image": MASKS, "masked_image_latents": LATENTS[:2], "num_inference_steps": 4}
    agree("sdxl_inpaint", **settings, image=IMAGES)
    agree("sdxl_inpaint", **settings, image=LATENTS[:2])


def test_arrays_and_tensors_in_place_of_pictures() -> None:
    pixels = np.stack([np.asarray(image, np.float32) / 255 for image in IMAGES])
    masks = np.stack([np.asarray(mask, np.float32) / 255 for mask in MASKS])
    settings = {**PROMPTS, **SIZE, "num_inference_steps": 4}
    agree("sdxl", **settings, image=pixels, mask_image=masks)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    agree("sdxl", **{**settings, "height": 56, "width": 120}, image=tensor, mask_image=torch.from_numpy(masks)[:, None])


def test_parts_of_the_schedule() -> None:
    ten = {**PROMPTS, "num_inference_steps": 10}
    agree("sdxl", **ten, **SIZE, denoising_end=0.6, output_type="latent")
    agree("sdxl", **ten, **SIZE, denoising_end=0.6, output_type="latent", image=IMAGES, mask_image=MASKS)
    agree("sdxl_inpaint", **ten, **SIZE, denoising_start=0.6, image=IMAGES, mask_image=MASKS)


def test_timesteps_and_sigmas() -> None:
    agree("sdxl", **PROMPTS, **SIZE, sigmas=[14.0, 5.0, 1.0, 0.2, 0.0], num_inference_steps=None)
    agree("lcm", prompt="a house", seeds=(1,), timesteps=[999, 599, 199], num_inference_steps=None)


@pytest.mark.parametrize("solver", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_callback_sees_and_changes_latents(solver: str) -> None:
    """It is called after each evaluation of the network, as diffusers calls it."""
    seen: list[tuple[int, float, Any]] = []

    def halve(_: Any, i: int, t: Any, given: dict[str, Any]) -> dict[str, Any]:
        seen.append((i, float(t), np.array(given["latents"])))
        return {"latents": given["latents"] * 0.5} if i == 1 else {}

    agree("sdxl", **PROMPTS, **SIZE, scheduler=solver, callback_on_step_end=halve, num_inference_steps=3)
    half = len(seen) // 2
    assert half == (3 if solver.startswith("Euler") else 5)
    for theirs, mine in zip(seen[:half], seen[half:], strict=True):
        assert theirs[:2] == pytest.approx(mine[:2])
        assert psnr(theirs[2], mine[2]) > 80


@pytest.mark.parametrize("output", ["pil", "np", "latent"])
def test_output_types(output: str) -> None:
    agree("sd1", **PROMPTS, **SIZE, output_type=output, num_inference_steps=2, decibels=60)


@pytest.mark.parametrize(("kind", "picture_size"), [("sd1", (90, 64)), ("sdxl", (100, 75))])
def test_padding_mask_crop(kind: str, picture_size: tuple[int, int]) -> None:
    image, mask = picture(*picture_size, 4), picture(*picture_size, 1, hole=True)
    settings = {"prompt": "a house", "num_images_per_prompt": 2, "seeds": (1, 2), "output_type": "pil"}
    result = agree(
        kind, **settings, **SIZE, image=image, mask_image=mask, padding_mask_crop=5, num_inference_steps=3, decibels=60
    )
    assert [drawn.size for drawn in result.images] == [image.size] * 2
    assert (result.height, result.width) == picture_size


def test_padding_mask_crop_cuts_the_control_image_too() -> None:
    image, mask, hint = picture(90, 64, 4), picture(90, 64, 1, hole=True), picture(90, 64, 5)
    settings = {"prompt": "a house", "seeds": (1,), "output_type": "pil", "controlnets": 1, "control_image": hint}
    agree("sd1", **settings, image=image, mask_image=mask, padding_mask_crop=3, num_inference_steps=3, decibels=60)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_of_the_schedule_that_diffusers_takes_for_none(share: float) -> None:
    settings: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 5, **SIZE}
    agree("sdxl", **settings, denoising_end=share)
    for task in ({"image": IMAGES[0]}, {"image": IMAGES[0], "mask_image": MASKS[0]}):
        agree("sdxl", **settings, **task, denoising_start=share, strength=0.6)
        agree("sdxl", **settings, **task, denoising_start=0.4, denoising_end=share)


@pytest.mark.parametrize("timesteps", [[800], [900, 600, 300]])
def test_timesteps_go_before_the_number_of_steps(timesteps: list[int]) -> None:
    settings: dict[str, Any] = {"prompt": "a cat", **SIZE, "scheduler": "EulerDiscreteScheduler"}
    result = agree("sdxl", **settings, num_inference_steps=1, timesteps=timesteps)
    assert result.settings["num_inference_steps"] == len(timesteps)
    agree("sdxl", **settings, num_inference_steps=7, sigmas=[9.0, 4.0, 1.0, 0.0])


def test_numbers_of_numpy_and_torch_and_whole_ones_as_floats() -> None:
    plain: dict[str, Any] = {
        "height": 72, "width": 104, "num_inference_steps": 3, "guidance_scale": 4.0, "num_images_per_prompt": 2,
        "original_size": (100, 120), "crops_coords_top_left": (4, 8), "guidance_rescale": 0.5, "seed": [3, 4],
    }  # fmt: skip
    other: dict[str, Any] = {
        "height": np.int64(72), "width": 104.0, "num_inference_steps": np.float32(3), "guidance_scale": torch.tensor(4),
        "num_images_per_prompt": np.array(2), "original_size": np.array([100, 120]),
        "crops_coords_top_left": (np.int32(4), np.float64(8)), "guidance_rescale": np.float16(0.5),
        "seed": np.array([3, 4]),
    }  # fmt: skip
    expected, found = (ours("sdxl")("a cat", output_type="latent", **settings) for settings in (plain, other))
    assert np.array_equal(expected.images, found.images)
    assert found.settings == expected.settings
    assert ours("sdxl")("a cat", seed=3.0, num_inference_steps=1, output_type="latent").seeds == (3,)
