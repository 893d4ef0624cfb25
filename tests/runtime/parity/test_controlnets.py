"""ControlNets, one and two, with every task."""

from typing import Any

import numpy as np
import pytest

from .oracle import agree, ours, picture

PROMPTS: dict[str, Any] = {
    "prompt": ["a cat by the sea", "an old man with a hat"],
    "negative_prompt": ["blurry", "low quality"],
    "num_images_per_prompt": 2,
    "seeds": (1, 2, 3, 4),
}
HINTS = [picture(72, 104, 5), picture(72, 104, 6)]
IMAGES = [picture(72, 104, 1), picture(72, 104, 2)]
MASKS = [picture(72, 104, 0, hole=True), picture(72, 104, 1, hole=True)]
ONE_NET: dict[str, Any] = {"controlnets": 1, "control_image": HINTS}
TWO_NETS: dict[str, Any] = {
    "controlnets": 2,
    "control_image": [HINTS[0], picture(72, 104, 7)],
    "controlnet_conditioning_scale": [0.5, 0.8],
}


def test_text() -> None:
    agree("sd1", **PROMPTS, **ONE_NET, num_inference_steps=4)
    agree("sdxl", **PROMPTS, **TWO_NETS, num_inference_steps=3)


def test_hint_of_another_size_is_resized() -> None:
    settings = {"control_image": picture(40, 48, 3), "controlnet_conditioning_scale": 0.6, "controlnets": 1}
    agree("sd1", **PROMPTS, **settings, height=72, width=104, num_inference_steps=3)


def test_two_nets_take_a_batch_of_hints_each() -> None:
    batches = [np.stack([np.asarray(h, np.float32) / 255 for h in pair]) for pair in (HINTS, IMAGES)]
    agree("sdxl", **PROMPTS, **{**TWO_NETS, "control_image": batches}, num_inference_steps=3)


@pytest.mark.parametrize("guidance_scale", [4.0, 1.0])
def test_guess_mode(guidance_scale: float) -> None:
    prompts = PROMPTS if guidance_scale > 1 else {**PROMPTS, "negative_prompt": None}
    agree("sd1", **prompts, **ONE_NET, guess_mode=True, guidance_scale=guidance_scale, num_inference_steps=3)
    agree("sdxl", **prompts, **TWO_NETS, guess_mode=True, guidance_scale=guidance_scale, num_inference_steps=3)


def test_windows() -> None:
    agree("sd1", **PROMPTS, **ONE_NET, control_guidance_start=0.2, control_guidance_end=0.7, num_inference_steps=6)
    windows: dict[str, Any] = {"control_guidance_start": [0.0, 0.6], "control_guidance_end": [0.5, 1.0]}
    agree("sdxl", **PROMPTS, **TWO_NETS, **windows, num_inference_steps=6)


def test_image() -> None:
    agree("sd1", **PROMPTS, **ONE_NET, image=IMAGES, num_inference_steps=5)
    agree("sdxl", **PROMPTS, **TWO_NETS, image=IMAGES, num_inference_steps=4)


def test_inpainting_by_blending_at_the_pictures_size() -> None:
    agree("sd1", **PROMPTS, **ONE_NET, image=IMAGES, mask_image=MASKS, num_inference_steps=4)
    agree("sdxl", **PROMPTS, **TWO_NETS, image=IMAGES, mask_image=MASKS, num_inference_steps=4)


def test_inpainting_with_nine_channels() -> None:
    settings = {"controlnets": 1, "control_image": HINTS[0]}
    agree("sdxl_inpaint", **PROMPTS, **settings, image=IMAGES, mask_image=MASKS, num_inference_steps=4)


def test_scale_zero_is_without() -> None:
    settings: dict[str, Any] = {"prompt": "a house", "seed": 3, "num_inference_steps": 3, "output_type": "np"}
    size = {"height": 72, "width": 104}
    for kind, nets, hints in (("sd1", 1, HINTS[0]), ("sdxl", 2, HINTS)):
        pipe = ours(kind, nets)
        off = pipe(**settings, **size, control_image=hints, controlnet_conditioning_scale=0.0).images
        assert np.array_equal(off, pipe(**settings, **size).images)
        on = pipe(**settings, **size, control_image=hints).images
        assert np.abs(on - off).max() > 0.02


def test_network_is_skipped_outside_its_window() -> None:
    pipe = ours("sd1", 1)
    pipe._loras.current.generation.denoising.close()  # what earlier requests have bound
    settings: dict[str, Any] = {"prompt": "a house", "seed": 3, "num_inference_steps": 4}
    with pipe.components.use("controlnet") as (engine,):
        calls = []
        prepare = engine.prepare

        def counted(inputs: Any, outputs: Any) -> Any:
            once = prepare(inputs, outputs)

            def run() -> None:
                calls.append(1)
                once()

            return run

        engine.prepare = counted  # type: ignore[method-assign]
        try:
            pipe(**settings, control_image=HINTS[0], control_guidance_start=0.5)
        finally:
            del engine.prepare
    assert len(calls) == 2


def test_pictures_for_each_prompt_and_net() -> None:
    """Lists in a list are of the prompts, as in diffusers' ``StableDiffusionControlNetPipeline``."""
    pipe = ours("sdxl", 2)
    a, b = IMAGES
    settings: dict[str, Any] = {"prompt": ["x", "y"], "seed": 3, "num_inference_steps": 2, "output_type": "np"}
    nested = pipe(**settings, control_image=[[HINTS[0], a], [HINTS[1], b]]).images
    batches = [np.stack([np.asarray(h, np.float32) / 255 for h in pair]) for pair in (HINTS, (a, b))]
    assert np.allclose(nested, pipe(**settings, control_image=batches).images, atol=1e-6)
