"""Callbacks change embeddings and guidance of a call that runs, as in diffusers, or are refused by name."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError

from ..parity.oracle import generators, oracle, ours, picture, psnr, their_warnings

CALL: dict[str, Any] = {"prompt": ["a cat", "a dog"], "num_inference_steps": 4, "height": 64, "width": 72}
CALL |= {"output_type": "np", "negative_prompt": ["red", "blue"]}


def ending_guidance(*halved: str) -> Callable[..., Mapping[str, Any]]:
    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Mapping[str, Any]:
        if step == 1:
            pipeline._guidance_scale = 0.0
            for name in halved:
                tensors[name] = tensors[name][len(tensors[name]) // 2 :]
        return tensors

    return callback


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_guidance_ends_on_every_engine(engine: str) -> None:
    names = ("prompt_embeds", "add_text_embeds", "add_time_ids")
    callback = {"callback_on_step_end": ending_guidance(*names), "callback_on_step_end_tensor_inputs": [*names]}
    with their_warnings():
        theirs = oracle("sdxl", "text")(**CALL, **callback, generator=generators(1, 2)).images
        whole = oracle("sdxl", "text")(**CALL, generator=generators(1, 2)).images
    found = ours("sdxl", engine=engine, precision="fp32")(**CALL, **callback, generator=generators(1, 2)).images
    assert psnr(theirs, found) >= 80
    assert psnr(theirs, whole) < 60


def test_guidance_ends_with_a_controlnet_and_with_more_images_than_fit() -> None:
    """The negative rows are dropped though nobody halves anything; later launches begin with guidance again."""
    call = {**CALL, "prompt": "a cat", "negative_prompt": "red", "num_images_per_prompt": 6}
    generator = torch.Generator().manual_seed(3)
    control = picture(64, 72)
    with their_warnings():
        theirs = oracle("sd1", "text", 1)(
            **call,
            image=control,
            generator=generator,
            callback_on_step_end=ending_guidance("prompt_embeds", "image"),
            callback_on_step_end_tensor_inputs=["prompt_embeds", "image"],
        ).images
    seen: list[tuple[float, tuple[int, ...]]] = []

    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Mapping[str, Any]:
        seen.append((pipeline._guidance_scale, tensors["prompt_embeds"].shape))
        return ending_guidance()(pipeline, step, timestep, tensors)

    result = ours("sd1", 1)(
        **call,
        control_image=control,
        generator=torch.Generator().manual_seed(3),
        callback_on_step_end=callback,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    assert psnr(theirs, result.images) >= 80
    assert seen[0] == (7.5, (8, 77, 24))
    assert (0.0, (4, 77, 24)) in seen
    assert (7.5, (4, 77, 24)) in seen
    assert (0.0, (2, 77, 24)) in seen


def test_a_change_of_negative_embeddings_has_no_effect_and_is_said() -> None:
    def callback(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Mapping[str, Any]:
        return {"negative_prompt_embeds": tensors["negative_prompt_embeds"] * 2}

    call = {**CALL, "seed": [1, 2]}
    names = ["negative_prompt_embeds"]
    changed = ours("sd1")(**call, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
    assert np.array_equal(changed.images, ours("sd1")(**call).images)
    assert [w for w in changed.warnings if "negative_prompt_embeds has no effect" in w]


@pytest.mark.parametrize(
    ("kind", "names", "returned", "message"),
    [
        ("sd1", ["add_text_embeds"], {}, "no add_text_embeds in this call, only latents, prompt_embeds"),
        ("sd1", ["mask"], {}, "mask cannot be had"),
        ("sd1", ["prompt_embed"], {}, "did you mean 'prompt_embeds'"),
        ("sd1", ["prompt_embeds"], {"prompt_embeds": np.zeros((2, 77, 24))}, "set pipe._guidance_scale = 0.0, too"),
        ("sd1", ["prompt_embeds"], {"prompt_embeds": np.zeros((4, 80, 24))}, r"\[4, 77, 24\] is needed"),
        ("sd1", ["prompt_embeds"], {"prompt_embeds": [[[float("nan")]]]}, "holds NaN"),
        ("sd1", ["latents"], {"noise": np.zeros(3)}, "returned noise, which cannot be changed"),
        ("sd1", ["latents"], {"latents": np.zeros((1, 4, 8, 9))}, r"latents of shape \[1, 4, 8, 9\]"),
    ],
)
def test_what_cannot_be_is_refused_by_name(kind: str, names: list[str], returned: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ours(kind)(**CALL, callback_on_step_end=lambda *_: returned, callback_on_step_end_tensor_inputs=names)


def test_guidance_is_not_switched_on_nor_set_outside_a_callback() -> None:
    def callback(pipeline: Any, *_: Any) -> None:
        pipeline._guidance_scale = 5.0

    with pytest.raises(UsageError, match="cannot be switched on"):
        ours("sd1")(**CALL, guidance_scale=1.0, callback_on_step_end=callback)
    for use in (lambda: ours("sd1")._guidance_scale, lambda: setattr(ours("sd1"), "_guidance_scale", 1.0)):
        with pytest.raises(UsageError, match="in a callback alone"):
            use()
