"""What diffusers' pipelines change in the scheduler config of a checkpoint when they open it.

Some scheduler options of old checkpoints of Stable Diffusion 1 and 2 are wrong. ``StableDiffusionPipeline``, its
image-to-image and its inpainting each change some of them (their ``__init__``, diffusers 0.42); the pipelines of
SDXL, of latent consistency models and those with a ControlNet change nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .families import FAMILIES

__all__ = ["SCHEDULER_CLASSES", "Fix", "fixed_scheduler", "fixes_for", "scheduler_notes"]


SCHEDULER_CLASSES = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "EDMDPMSolverMultistepScheduler",
    "EDMEulerScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers that a bundle can use; a test compares this list with the runtime's solvers."""


@dataclass(frozen=True, kw_only=True)
class Fix:
    """How one option is corrected.

    Attributes:
        option: its name.
        corrected: what it is set to.
        defaults: its default by class, where the file does not set it; "" stands for all others.

    """

    option: str
    corrected: object
    defaults: Mapping[str, object]

    def applies(self, value: object) -> bool:
        """Whether this value is changed."""
        return value != self.corrected if self.option == "steps_offset" else value is (not self.corrected)

    def value(self, config: Mapping[str, object]) -> object:
        """Return the value that the scheduler of this config has; the corrected one where it has no such option."""
        default = self.defaults.get(str(config.get("_class_name")), self.defaults.get("", self.corrected))
        return config.get(self.option, default)


_NO_OFFSET = ("DPMSolverSinglestepScheduler", "EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
_OFFSET = Fix(option="steps_offset", corrected=1, defaults={"": 0, **dict.fromkeys(_NO_OFFSET, 1)})
_CLIP = Fix(option="clip_sample", corrected=False, defaults={"DDIMScheduler": True, "DDPMScheduler": True})
_PRK = Fix(option="skip_prk_steps", corrected=True, defaults={"PNDMScheduler": False})

_PER_TASK: dict[str, tuple[Fix, ...]] = {
    "text": (_OFFSET, _CLIP),
    "image": (_OFFSET, _CLIP),
    "inpaint": (_OFFSET, _PRK),
}


def fixes_for(family: str, pipeline_class: str, task: str, *, controlled: bool) -> tuple[Fix, ...]:
    """Return what diffusers' pipeline for a task corrects.

    Args:
        family: of the checkpoint.
        pipeline_class: the checkpoint's own, ``_class_name`` of its ``model_index.json``.
        task: ``text``, ``image`` or ``inpaint``.
        controlled: whether ControlNets are used.

    """
    distilled = pipeline_class.startswith("LatentConsistencyModel") and task != "inpaint"
    if not FAMILIES[family].corrects_schedulers or controlled or distilled:
        return ()
    return _PER_TASK[task]


def fixed_scheduler(
    config: Mapping[str, object], fixes: tuple[Fix, ...], *, other: bool = False
) -> Mapping[str, object]:
    """Return the config as the pipeline leaves it.

    Args:
        config: the checkpoint's ``scheduler_config.json``.
        fixes: from :func:`fixes_for`.
        other: whether a scheduler of another class is made from it, which takes over what the file sets and has
            defaults of its own for the rest, as with diffusers' ``from_config``.

    """
    changed = {
        fix.option: fix.corrected
        for fix in fixes
        if fix.applies(fix.value(config)) and (fix.option in config or not other)
    }
    return {**config, **changed} if changed else config


def scheduler_notes(config: Mapping[str, object], family: str, pipeline_class: str) -> list[str]:
    """Say what will be changed, and for which task."""
    notes = []
    for fix in (_OFFSET, _CLIP, _PRK):
        tasks = [t for t in _PER_TASK if fix in fixes_for(family, pipeline_class, t, controlled=False)]
        if not tasks or not fix.applies(fix.value(config)):
            continue
        setting = f"{fix.option}={fix.value(config)}" if fix.option in config else f"no {fix.option}"
        named = " and ".join(
            {"text": "text-to-image", "image": "image-to-image", "inpaint": "inpainting"}[t] for t in tasks
        )
        notes.append(
            f"the scheduler config has {setting}: taken as {fix.corrected} in {named}, as in diffusers' pipelines "
            "(not with a ControlNet)"
        )
    return notes
