"""Defaults that depend on family and task, as diffusers' pipelines have them in their signatures (0.42)."""

from dataclasses import dataclass

__all__ = ["Defaults", "defaults_for"]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What holds where the request says nothing."""

    guidance_scale: float
    strength: float | None = None
    controlnet_conditioning_scale: float = 1.0
    num_inference_steps: int = 50


_SD = {
    ("text", False): Defaults(guidance_scale=7.5),
    ("image", False): Defaults(guidance_scale=7.5, strength=0.8),
    ("inpaint", False): Defaults(guidance_scale=7.5, strength=1.0),
    ("text", True): Defaults(guidance_scale=7.5),
    ("image", True): Defaults(guidance_scale=7.5, strength=0.8, controlnet_conditioning_scale=0.8),
    ("inpaint", True): Defaults(guidance_scale=7.5, strength=1.0, controlnet_conditioning_scale=0.5),
}
_SDXL = {
    ("text", False): Defaults(guidance_scale=5.0),
    ("image", False): Defaults(guidance_scale=5.0, strength=0.3),
    ("inpaint", False): Defaults(guidance_scale=7.5, strength=0.9999),
    ("text", True): Defaults(guidance_scale=5.0),
    ("image", True): Defaults(guidance_scale=5.0, strength=0.8, controlnet_conditioning_scale=0.8),
    ("inpaint", True): Defaults(guidance_scale=5.0, strength=0.9999),
}
_LCM = {
    ("text", False): Defaults(guidance_scale=8.5, num_inference_steps=4),
    ("image", False): Defaults(guidance_scale=8.5, strength=0.8, num_inference_steps=4),
}


def defaults_for(family: str, pipeline_class: str, task: str, *, controlled: bool) -> Defaults:
    """Return the defaults of a task.

    Args:
        family: the bundle's.
        pipeline_class: ``_class_name`` of the checkpoint's ``model_index.json``; LCM's pipelines have their own.
        task: ``text``, ``image`` or ``inpaint``.
        controlled: whether a ControlNet takes part.

    """
    if pipeline_class.startswith("LatentConsistencyModel") and (task, controlled) in _LCM:
        return _LCM[task, controlled]
    return (_SDXL if family.startswith("sdxl") else _SD)[task, controlled]
