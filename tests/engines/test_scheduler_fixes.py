"""What a checkpoint's scheduler config becomes, against the pipelines of diffusers that change it."""

import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
from sdengine.engines.scheduler_fixes import SCHEDULER_CLASSES, fixed_scheduler, fixes_for, scheduler_notes
from sdengine.runtime.schedule.solver_registry import SOLVERS

PIPELINES = {
    ("sd1", "StableDiffusionPipeline", "text", False): diffusers.StableDiffusionPipeline,
    ("sd2", "StableDiffusionPipeline", "image", False): diffusers.StableDiffusionImg2ImgPipeline,
    ("sd1", "StableDiffusionInpaintPipeline", "inpaint", False): diffusers.StableDiffusionInpaintPipeline,
    ("sd1", "StableDiffusionPipeline", "text", True): diffusers.StableDiffusionControlNetPipeline,
    ("sd1", "StableDiffusionPipeline", "image", True): diffusers.StableDiffusionControlNetImg2ImgPipeline,
    ("sd1", "StableDiffusionPipeline", "inpaint", True): diffusers.StableDiffusionControlNetInpaintPipeline,
    ("sd1", "LatentConsistencyModelPipeline", "text", False): diffusers.LatentConsistencyModelPipeline,
    ("sd1", "LatentConsistencyModelPipeline", "image", False): diffusers.LatentConsistencyModelImg2ImgPipeline,
    ("sd1", "LatentConsistencyModelPipeline", "inpaint", False): diffusers.StableDiffusionInpaintPipeline,
    ("sdxl", "StableDiffusionXLPipeline", "text", False): diffusers.StableDiffusionXLPipeline,
    ("sdxl", "StableDiffusionXLPipeline", "image", False): diffusers.StableDiffusionXLImg2ImgPipeline,
    ("sdxl", "StableDiffusionXLPipeline", "inpaint", False): diffusers.StableDiffusionXLInpaintPipeline,
    ("sdxl-refiner", "StableDiffusionXLImg2ImgPipeline", "image", False): diffusers.StableDiffusionXLImg2ImgPipeline,
}
SCHEDULERS = (
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler", "EDMEulerScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler",
    "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler",
    "TCDScheduler", "UniPCMultistepScheduler",
)  # fmt: skip
OPTIONS: list[dict[str, Any]] = [
    {},
    {"steps_offset": 0},
    {"steps_offset": 1, "clip_sample": False, "skip_prk_steps": True},
    {"steps_offset": 2, "clip_sample": True, "skip_prk_steps": False},
]
DEFAULTS = {"steps_offset": 0, "clip_sample": False, "skip_prk_steps": True}


def _parts(pipeline: type, scheduler: Any) -> dict[str, Any]:
    names = inspect.signature(pipeline.__init__).parameters  # type: ignore[misc]
    parts = {
        name: None for name in names if name not in ("self", "scheduler") and names[name].default is names[name].empty
    }
    if "requires_safety_checker" in names:
        parts["requires_safety_checker"] = False
    return parts | {"scheduler": scheduler}


@pytest.mark.filterwarnings("ignore")  # diffusers' own
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("case", PIPELINES, ids=lambda case: "-".join(map(str, case)))
def test_as_in_diffusers(tmp_path: Path, case: tuple[str, str, str, bool], name: str) -> None:
    family, pipeline_class, task, controlled = case
    for options in OPTIONS:
        config = {"_class_name": name, "_diffusers_version": "0.42.1", **options}
        (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
        scheduler = getattr(diffusers, name).from_pretrained(tmp_path)
        pipeline = PIPELINES[case](**_parts(PIPELINES[case], scheduler))
        others = {
            other: getattr(diffusers, other).from_config(pipeline.scheduler.config).config
            for other in ("DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler")
            if other != name
        }
        fixes = fixes_for(family, pipeline_class, task, controlled=controlled)
        own = dict(scheduler.config)
        fixed = fixed_scheduler(config, fixes)
        for option in DEFAULTS:
            # Where neither the file nor a fix says anything, it is the class that decides.
            if option in fixed:
                assert fixed[option] == own[option], (options, option)
            elif option in own:
                assert own[option] == getattr(diffusers, name)().config[option], (options, option)
        for other, theirs in others.items():
            mine = fixed_scheduler(config, fixes, other=True)
            default = getattr(diffusers, other)().config
            for option in ("steps_offset", "clip_sample", "skip_prk_steps"):
                if option in default:
                    assert mine.get(option, default[option]) == theirs[option], (options, other, option)


def test_what_is_said() -> None:
    old = {"_class_name": "PNDMScheduler", "steps_offset": 0, "clip_sample": True}
    notes = scheduler_notes(old, "sd1", "StableDiffusionPipeline")
    assert notes[0] == (
        "the scheduler config has steps_offset=0: taken as 1 in text-to-image and image-to-image and inpainting, as in "
        "diffusers' pipelines (not with a ControlNet)"
    )
    assert "clip_sample=True: taken as False in text-to-image and image-to-image," in notes[1]
    assert "no skip_prk_steps: taken as True in inpainting," in notes[2]
    assert len(notes) == 3
    assert scheduler_notes(old, "sdxl", "StableDiffusionXLPipeline") == []
    assert (
        scheduler_notes(
            {"_class_name": "PNDMScheduler", "steps_offset": 1, "skip_prk_steps": True},
            "sd1",
            "StableDiffusionPipeline",
        )
        == []
    )


def test_the_list_of_schedulers() -> None:
    assert sorted(SOLVERS) == list(SCHEDULER_CLASSES)
