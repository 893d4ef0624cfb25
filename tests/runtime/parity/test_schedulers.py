"""Solvers that draw noise, look back or evaluate twice, from the middle of their schedule."""

from typing import Any

import pytest

from .oracle import agree, picture

PROMPTS: dict[str, Any] = {
    "prompt": ["a cat by the sea", "an old man with a hat"],
    "num_images_per_prompt": 2,
    "seeds": (1, 2, 3, 4),
}
IMAGE = picture(72, 104, 1)
MASK = picture(72, 104, 0, hole=True)
SOLVERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("EulerAncestralDiscreteScheduler", {}, {}),
    ("DDIMScheduler", {"clip_sample": False}, {"eta": 0.5}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
    ("KDPM2AncestralDiscreteScheduler", {}, {}),
    ("LCMScheduler", {}, {}),
    ("HeunDiscreteScheduler", {}, {}),
    ("UniPCMultistepScheduler", {"use_karras_sigmas": True}, {}),
    ("PNDMScheduler", {"skip_prk_steps": True}, {}),
    ("DDIMScheduler", {"clip_sample": True, "clip_sample_range": 2.0}, {"eta": 0.5}),
    ("DDPMScheduler", {"clip_sample": True}, {}),
]


@pytest.mark.parametrize(("solver", "options", "given"), SOLVERS, ids=[solver[0] for solver in SOLVERS])
def test_image(solver: str, options: dict[str, Any], given: dict[str, Any]) -> None:
    settings: dict[str, Any] = {
        "scheduler": solver,
        "scheduler_config": options,
        "num_inference_steps": 8,
        "strength": 0.6,
    }
    agree("sdxl", **PROMPTS, **settings, **given, image=IMAGE)


@pytest.mark.parametrize(("solver", "options", "given"), SOLVERS[:6], ids=[solver[0] for solver in SOLVERS[:6]])
def test_inpainting_by_blending(solver: str, options: dict[str, Any], given: dict[str, Any]) -> None:
    settings: dict[str, Any] = {
        "scheduler": solver,
        "scheduler_config": options,
        "num_inference_steps": 6,
        "strength": 0.6,
    }
    prompts = {**PROMPTS, "seeds": 7}
    agree("sd1", **prompts, **settings, **given, height=72, width=104, image=IMAGE, mask_image=MASK)


@pytest.mark.parametrize(("solver", "options", "given"), SOLVERS[:2], ids=[solver[0] for solver in SOLVERS[:2]])
def test_inpainting_with_nine_channels(solver: str, options: dict[str, Any], given: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"scheduler": solver, "scheduler_config": options, "num_inference_steps": 4}
    agree("sdxl_inpaint", **PROMPTS, **settings, **given, height=40, width=64, image=IMAGE, mask_image=MASK)
