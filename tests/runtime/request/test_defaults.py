"""The defaults of every task are those in the signatures of diffusers' pipelines."""

import inspect
from typing import Any

import diffusers
import pytest
from sdengine.engines.families import FAMILIES
from sdengine.runtime import Pipeline, Request

PIPELINES = [
    ("sd1", "StableDiffusionPipeline", "text", False),
    ("sd2", "StableDiffusionPipeline", "text", False),
    ("sd1", "StableDiffusionImg2ImgPipeline", "image", False),
    ("sd1", "StableDiffusionInpaintPipeline", "inpaint", False),
    ("sd1", "StableDiffusionControlNetPipeline", "text", True),
    ("sd1", "StableDiffusionControlNetImg2ImgPipeline", "image", True),
    ("sd1", "StableDiffusionControlNetInpaintPipeline", "inpaint", True),
    ("sdxl", "StableDiffusionXLPipeline", "text", False),
    ("sdxl", "StableDiffusionXLImg2ImgPipeline", "image", False),
    ("sdxl-refiner", "StableDiffusionXLImg2ImgPipeline", "image", False),
    ("sdxl", "StableDiffusionXLInpaintPipeline", "inpaint", False),
    ("sdxl", "StableDiffusionXLControlNetPipeline", "text", True),
    ("sdxl", "StableDiffusionXLControlNetImg2ImgPipeline", "image", True),
    ("sdxl", "StableDiffusionXLControlNetInpaintPipeline", "inpaint", True),
    ("sd1", "LatentConsistencyModelPipeline", "text", False),
    ("sd1", "LatentConsistencyModelImg2ImgPipeline", "image", False),
]
BY_TASK = ("guidance_scale", "strength", "controlnet_conditioning_scale", "num_inference_steps")
NOT_COMPARED = {
    *("return_dict", "cross_attention_kwargs", "ip_adapter_image", "ip_adapter_image_embeds"),
    *("self", "kwargs", "callback_on_step_end_tensor_inputs"),
}


def defaults_of(name: str) -> dict[str, Any]:
    parameters = inspect.signature(getattr(diffusers, name).__call__).parameters
    return {key: parameter.default for key, parameter in parameters.items() if key not in NOT_COMPARED}


@pytest.mark.parametrize(("family", "name", "task", "controlled"), PIPELINES, ids=[p[1] for p in PIPELINES])
def test_defaults_of_tasks(family: str, name: str, task: str, controlled: bool) -> None:
    found = FAMILIES[family].defaults_for(name, task, controlled=controlled)
    theirs = defaults_of(name)
    for parameter in BY_TASK:
        if parameter in theirs:
            assert getattr(found, parameter) == theirs[parameter], parameter


@pytest.mark.parametrize("name", [p[1] for p in PIPELINES])
def test_every_argument_is_known_with_its_default(name: str) -> None:
    ours = Request()
    for parameter, default in defaults_of(name).items():
        mine = getattr(ours, parameter)
        if parameter not in BY_TASK and parameter not in ("control_image", "image", "mask_image"):
            assert mine == default or (mine is None and default is None), parameter


def test_callers_see_the_fields_of_a_request_as_arguments() -> None:
    fields = inspect.signature(Request).parameters
    for method in (Pipeline.__call__, Pipeline.prepare):
        owner, *arguments = inspect.signature(method).parameters.values()
        assert owner.name == "self"
        assert arguments == [*fields.values()]
