"""A request that cannot be met says what was wrong and what would work; nothing is drawn."""

from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError

from .parity.oracle import ours, picture


class Nameless:
    def __repr__(self) -> str:
        raise RuntimeError("no name")


NAMELESS = Nameless()
IMAGE, MASK = picture(64, 64, 1), picture(64, 64, 0, hole=True)
CASES: list[tuple[str, int, dict[str, Any], str]] = [
    ("sd1", 0, {"stength": 0.5}, "unknown argument 'stength'; did you mean 'strength'"),
    ("sd1", 0, {"guess_model": True}, "guess_model: write guess_mode"),
    ("sd1", 0, {"ip_adapter_image": IMAGE}, "IP-Adapter is not supported"),
    ("sd1", 0, {"ip_adapter_image_embeds": [1]}, "IP-Adapter is not supported"),
    ("sd1", 0, {"height": 70}, "height=70 is no multiple of 8; the nearest that works is 72"),
    ("sd1", 0, {"width": 512}, "width=512 is outside this bundle's 32 to 128 pixels; the nearest that works is 128"),
    (
        "sd_inpaint",
        0,
        {"image": IMAGE, "mask_image": MASK, "width": 30},
        "no multiple of 4; the nearest that works is 32",
    ),
    ("sd1", 0, {"height": 64.5}, "height=64.5 must be a whole number, 1 or more"),
    ("sd1", 0, {"image": IMAGE, "strength": 1.5}, "strength=1.5 is outside 0 to 1"),
    ("sdxl", 0, {"image": IMAGE, "strength": 0.0}, "leaves no step of 2"),
    ("sd1", 0, {"image": picture(300, 64)}, "height=300 is no multiple of 8; the nearest that works is 128|height=296"),
    ("sd1", 0, {"strength": 0.5}, "strength needs image"),
    ("sd1", 0, {"padding_mask_crop": 4}, "padding_mask_crop needs image"),
    ("sd1", 0, {"mask_image": MASK}, "mask_image needs image"),
    (
        "sd1",
        0,
        {"image": IMAGE, "mask_image": picture(64, 72, hole=True), "padding_mask_crop": 4},
        "mask_image is 72x64 pixels, the image 64x64",
    ),
    ("sd1", 0, {"image": IMAGE, "mask_image": MASK, "padding_mask_crop": -1}, "padding_mask_crop=-1 must be a whole"),
    (
        "sd1",
        0,
        {"image": IMAGE, "mask_image": MASK, "padding_mask_crop": 4, "output_type": "np"},
        "output_type must be pil, not np",
    ),
    ("sd1", 0, {"control_image": IMAGE}, "holds no ControlNet; export it again with --controlnet"),
    ("sd1", 0, {"guess_mode": True}, "guess_mode needs control_image"),
    ("sd1", 1, {"control_image": IMAGE, "control_guidance_start": 0.7, "control_guidance_end": 0.5}, "need 0 <= start"),
    ("sd1", 1, {"control_image": IMAGE, "controlnet_conditioning_scale": "high"}, "must be a finite number"),
    ("sd1", 1, {"control_image": IMAGE, "controlnet_conditioning_scale": [1.0, 2.0]}, "2 given for 1 ControlNets"),
    ("sd1", 1, {"control_image": [IMAGE] * 3}, "3 images for 1 prompts"),
    ("sdxl", 2, {"control_image": IMAGE}, "1 given, this bundle holds 2 ControlNets"),
    ("sdxl", 2, {"control_image": [[IMAGE], [IMAGE]]}, "one for each of the 2 ControlNets"),
    ("sd1", 0, {"original_size": (64, 64)}, "original_size is SDXL's; this bundle is of the family sd1"),
    ("sd1", 0, {"denoising_end": 0.5}, "denoising_end is SDXL's"),
    ("sdxl", 0, {"denoising_end": 1.5}, "denoising_end=1.5 is outside 0 to 1"),
    ("sdxl", 0, {"image": IMAGE, "denoising_start": 0.8, "denoising_end": 0.5}, "must be below denoising_end"),
    ("sdxl", 0, {"original_size": (64,)}, "original_size=.* must be two numbers"),
    ("sdxl_refiner", 0, {}, "this is a refiner: it needs image"),
    ("sdxl_inpaint", 0, {}, "this is an inpainting checkpoint: give image and mask_image"),
    ("sdxl_inpaint", 0, {"image": torch.zeros(1, 4, 8, 8), "mask_image": MASK}, "image as pixels, or masked_image"),
    (
        "sdxl",
        0,
        {"latents": np.zeros((1, 4, 9, 8), np.float32)},
        r"latents has shape \[1, 4, 9, 8\]; this request needs",
    ),
    ("sdxl", 0, {"image": torch.zeros(1, 4, 9, 8), "height": 64}, "latents are of an image of 64x72 pixels"),
    ("sdxl", 0, {"image": [IMAGE] * 2}, "image: 2 given for 1 images"),
    ("sdxl", 0, {"seed": [1, 2], "num_images_per_prompt": 3}, "2 seeds for 3 images"),
    ("sdxl", 0, {"seed": 1, "generator": torch.Generator()}, "seed and generator were both given"),
    ("sdxl", 0, {"num_images_per_prompt": 0}, "num_images_per_prompt=0 must be a whole number, 1 or more"),
    ("sdxl", 0, {"num_inference_steps": 0}, "num_inference_steps=0 must be a whole number"),
    ("sdxl", 0, {"num_inference_steps": True}, "num_inference_steps=True must be a whole number"),
    ("sdxl", 0, {"num_inference_steps": np.float32(2.5)}, "num_inference_steps=.*2.5.* must be a whole number"),
    ("sdxl", 0, {"guidance_scale": np.array([1.0])}, "guidance_scale=.* must be a finite number"),
    ("sdxl", 0, {"guidance_scale": "5"}, "guidance_scale='5' must be a finite number"),
    ("sdxl", 0, {"eta": "0"}, "eta='0' must be a finite number"),
    ("sdxl", 0, {"timesteps": 800}, "timesteps=800 must be a list of numbers"),
    ("sdxl", 0, {"timesteps": [800], "sigmas": [1.0, 0.0]}, "exactly one of num_inference_steps, timesteps and sigmas"),
    ("sdxl", 0, {"seed": 1.5}, "a seed is a whole number, not 1.5"),
    ("sdxl", 0, {"seed": NAMELESS}, "seed: a seed is a whole number, not a Nameless"),
    ("sdxl", 0, {"seed": 10**5000}, "seed a number of thousands of digits is out of range"),
    ("sdxl", 0, {"loras": NAMELESS}, "loras=a Nameless: give a list of files"),
    ("sdxl", 0, {"loras": np.array(2)}, r"loras=array\(2\): give a list of files"),
    ("sdxl", 0, {"callback_on_step_end": NAMELESS}, "callback_on_step_end=a Nameless is no function"),
    ("sdxl", 0, {"guidance_scale": -1e39}, r"guidance_scale=-1e\+39 is too large; 3\.4e\+38 is the most"),
    ("sdxl", 0, {"guidance_scale": float("nan")}, "guidance_scale=nan must be a finite number"),
    ("sdxl", 0, {"output_type": "pli"}, "did you mean 'pil'"),
    ("sdxl", 0, {"scheduler": "EulerDiscreteSchedular"}, "did you mean 'EulerDiscreteScheduler'"),
    ("sdxl", 0, {"scheduler_config": {"use_karas_sigmas": True}}, "did you mean 'use_karras_sigmas'"),
    ("sdxl", 0, {"original_inference_steps": 50}, "no option 'original_inference_steps'"),
    ("sdxl", 0, {"eta": 0.5}, "does not take eta"),
    ("lcm", 0, {"image": IMAGE, "num_inference_steps": 8, "strength": 0.1}, "leaves 5 of the 50 steps"),
    ("sdxl", 0, {"callback_on_step_end_tensor_inputs": ["masks"]}, "there is no 'masks', only latents"),
    ("sdxl", 0, {"callback_on_step_end": lambda *_: {"prompt_embeds": 1}}, r"returned prompt_embeds of shape \[\]"),
    ("sdxl", 0, {"callback_on_step_end": lambda *_: {"latents": np.zeros(3)}}, r"latents of shape \[3\]"),
]


@pytest.mark.parametrize(("kind", "nets", "settings", "message"), CASES, ids=[c[3][:40] for c in CASES])
def test_messages(kind: str, nets: int, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ours(kind, nets)("a house", **{"num_inference_steps": 2, **settings})


@pytest.mark.parametrize(
    ("kind", "settings", "warning"),
    [
        ("sd1", {"guidance_scale": 1.0, "guidance_rescale": 0.5}, "guidance_rescale has no effect without guidance"),
        ("sdxl", {"image": torch.zeros(1, 4, 8, 8), "denoising_start": 0.5, "strength": 0.5}, "strength has no effect"),
        ("sdxl", {"aesthetic_score": 3.0}, "aesthetic_score has no effect"),
        ("sdxl_refiner", {"image": IMAGE, "target_size": (3, 4)}, "target_size has no effect on a refiner"),
        ("sdxl", {"denoising_end": 0.0}, "denoising_end=0.0 has no effect, as in diffusers"),
        (
            "sdxl",
            {"image": IMAGE, "strength": 0.5, "denoising_start": 0.0},
            "denoising_start=0.0 does not set where to begin",
        ),
        ("sdxl", {"timesteps": [900, 500, 100]}, "num_inference_steps has no effect beside timesteps or sigmas"),
        ("lcm", {"negative_prompt": "x"}, "negative_prompt has no effect without guidance"),
    ],
)
def test_arguments_without_effect_are_named(kind: str, settings: dict[str, Any], warning: str) -> None:
    result = ours(kind)("a house", **settings, num_inference_steps=4, output_type="latent")
    assert [found for found in result.warnings if found.startswith(warning)]
