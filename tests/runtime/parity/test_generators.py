"""Generators of torch across calls: images and the generator's state afterwards are those that diffusers leaves."""

from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from sdengine.runtime.ensemble import Ensemble

from .oracle import oracle, ours, picture, psnr, their_warnings

SIZE: dict[str, Any] = {"height": 64, "width": 72}
IMAGE, MASK = picture(64, 72, 1), picture(64, 72, 0, hole=True)
TASKS: dict[str, dict[str, Any]] = {
    "text": {},
    "image": {"image": IMAGE, "strength": 0.7},
    "inpaint": {"image": IMAGE, "mask_image": MASK, "strength": 0.7},
}
STREAMS: dict[str, Callable[[], Any]] = {
    "one": lambda: torch.Generator().manual_seed(5),
    "listed": lambda: [torch.Generator().manual_seed(5 + i) for i in range(2)],
    "twice": lambda: [torch.Generator().manual_seed(5)] * 2,
}


def states(generator: Any) -> list[torch.Tensor]:
    return [one.get_state() for one in (generator if isinstance(generator, list) else [generator])]


@pytest.mark.parametrize(
    ("kind", "task"), [(kind, task) for kind in ("sdxl", "sd1") for task in TASKS] + [("sd_inpaint", "inpaint")]
)
@pytest.mark.parametrize("streams", STREAMS)
def test_two_calls_with_the_same_generator(kind: str, task: str, streams: str) -> None:
    mine, theirs = STREAMS[streams](), STREAMS[streams]()
    reference = oracle(kind, task)
    arguments: dict[str, Any] = {
        "prompt": "a cat", "num_images_per_prompt": 2, "num_inference_steps": 3, "output_type": "np", **TASKS[task],
    }  # fmt: skip
    if task != "image":
        arguments |= SIZE
    previous = None
    for call in range(2):
        with their_warnings():
            expected = reference(**arguments, generator=theirs).images
        result = ours(kind)(**arguments, generator=mine)
        assert psnr(expected, result.images) > 80
        assert all(torch.equal(*pair) for pair in zip(states(mine), states(theirs), strict=True))
        assert previous is None or psnr(expected, previous) < 60
        assert bool([note for note in result.warnings if "had been used" in note]) == (call == 1)
        previous = expected


SCHEDULERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("DDIMScheduler", {"clip_sample": False}, {}),
    ("DDIMScheduler", {"clip_sample": False}, {"eta": 0.5}),
    ("DDPMScheduler", {"clip_sample": False}, {}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}),
    ("EulerAncestralDiscreteScheduler", {}, {}),
    ("HeunDiscreteScheduler", {}, {}),
    ("KDPM2AncestralDiscreteScheduler", {}, {}),
    ("LCMScheduler", {}, {}),
    ("PNDMScheduler", {}, {}),
    ("TCDScheduler", {}, {"eta": 0.3}),
    ("UniPCMultistepScheduler", {}, {}),
]


@pytest.mark.parametrize(("name", "config", "settings"), SCHEDULERS)
def test_every_solver_leaves_the_generator_where_diffusers_does(
    name: str, config: dict[str, Any], settings: dict[str, Any]
) -> None:
    mine, theirs = (torch.Generator().manual_seed(9) for _ in range(2))
    reference = oracle("sd1", "text")
    with their_warnings():
        reference.scheduler = getattr(diffusers, name).from_config(reference.scheduler.config, **config)
        reference("a cat", num_inference_steps=4, output_type="latent", generator=theirs, **settings, **SIZE)
    ours("sd1")(
        "a cat", num_inference_steps=4, output_type="latent", generator=mine, scheduler=name, scheduler_config=config,
        **settings, **SIZE,
    )  # fmt: skip
    assert torch.equal(mine.get_state(), theirs.get_state())


LATENTS = torch.randn(2, 4, 8, 9, generator=torch.Generator().manual_seed(1))
INPAINT: dict[str, Any] = {"image": IMAGE, "mask_image": MASK, **SIZE}
CALLS: list[tuple[str, int, dict[str, Any]]] = [
    ("sdxl", 0, {"latents": LATENTS, **SIZE}),
    ("sdxl", 0, {"image": [IMAGE, picture(64, 72, 2)]}),
    ("sdxl", 0, {"image": LATENTS, "denoising_start": 0.5}),
    ("sdxl", 0, {**INPAINT, "strength": 0.5, "latents": LATENTS}),
    ("sdxl_inpaint", 0, {**INPAINT, "strength": 1.0}),
    ("sdxl_inpaint", 0, {**INPAINT, "strength": 0.5, "masked_image_latents": LATENTS[:1]}),
    ("sd1", 0, {**INPAINT, "padding_mask_crop": 3, "output_type": "pil"}),
    ("sd1", 1, {"control_image": IMAGE}),
    ("sd1", 1, {"control_image": IMAGE, "image": IMAGE, "strength": 0.6}),
    ("sdxl", 1, {"control_image": IMAGE, **INPAINT, "strength": 0.6}),
    ("lcm", 0, {"image": IMAGE, "strength": 0.8}),
    ("sdxl_refiner", 0, {"image": IMAGE, "strength": 0.5}),
]


@pytest.mark.parametrize(("kind", "nets", "arguments"), CALLS, ids=[f"{k}-{'-'.join(a)}" for k, _, a in CALLS])
@pytest.mark.parametrize("streams", ["one", "listed"])
def test_every_task_leaves_the_generator_where_diffusers_does(
    kind: str, nets: int, arguments: dict[str, Any], streams: str
) -> None:
    mine, theirs = STREAMS[streams](), STREAMS[streams]()
    task = "inpaint" if "mask_image" in arguments else "image" if "image" in arguments else "text"
    common: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 4, "num_images_per_prompt": 2}
    settings = {"output_type": "latent", **common, **arguments}
    ours(kind, nets)(**settings, generator=mine)
    if task == "text" and nets:
        settings["image"] = settings.pop("control_image")
    with their_warnings():
        oracle(kind, task, nets)(**settings, generator=theirs)
    assert all(torch.equal(*pair) for pair in zip(states(mine), states(theirs), strict=True))


def test_base_and_refiner_share_a_generator() -> None:
    mine, theirs = (torch.Generator().manual_seed(5) for _ in range(2))
    settings: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 6}
    base, refiner = oracle("sdxl", "text"), oracle("sdxl_refiner", "image")
    with their_warnings():
        latents = base(**settings, **SIZE, output_type="latent", generator=theirs).images
        expected = refiner(**settings, image=latents, strength=0.5, output_type="np", generator=theirs).images
    both = Ensemble(ours("sdxl"), ours("sdxl_refiner"))
    given = {"strength": 0.5}
    result = both(**settings, **SIZE, denoising_split=None, refiner_settings=given, generator=mine, output_type="np")
    assert psnr(np.asarray(expected), result.images) > 80
    assert torch.equal(mine.get_state(), theirs.get_state())
