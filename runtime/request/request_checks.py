"""Checks whether a request suits the bundle and its task, and finds arguments that have no effect."""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.families import FAMILIES, Family
from ...engines.nets.config import UNetConfig
from .request import Request

__all__ = ["NEEDS", "arguments_of_no_use", "check_embeds", "check_task", "inner_share", "without_effect"]

_ONLY_IMAGE = ("strength", "masked_image_latents", "padding_mask_crop", "denoising_start")
_ONLY_MASK = ("masked_image_latents", "padding_mask_crop")
_ONLY_CONTROL = (
    "guess_mode",
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
)
NEEDS = {
    **dict.fromkeys(_ONLY_IMAGE, "image"),
    **dict.fromkeys(_ONLY_MASK, "mask_image"),
    **dict.fromkeys(_ONLY_CONTROL, "control_image"),
}
"""By argument that needs an image beside it, the argument of that image."""
_DEFAULT = Request()


def _is_set(request: Request, name: str) -> bool:
    value, default = getattr(request, name), getattr(_DEFAULT, name)
    if default is None:
        return value is not None
    return bool(tuple(value) != default if isinstance(default, tuple) else value != default)


def inner_share(share: float | None) -> float | None:
    """Return a share of the schedule, or None for 0 and 1, which diffusers ignores."""
    return share if share is not None and 0 < share < 1 else None


def check_task(request: Request, task: str, unet: UNetConfig, bundle: Bundle) -> None:
    """Check a request against its task and the bundle.

    Raises:
        UsageError: it does not suit them; the message says what would.

    """
    family = bundle.family
    refiner = bool(bundle.manifest.model_index.get("requires_aesthetics_score"))
    if unet.inpaints and task != "inpaint":
        raise UsageError("image: this is an inpainting checkpoint: give image and mask_image")
    if task == "inpaint" and unet.image and not unet.inpaints:
        raise UsageError("mask_image needs an inpainting decoder, which this bundle is not: export one")
    if unet.image_hint and request.hint is None:
        raise UsageError("this decoder needs a hint, such as a depth map: give hint")
    if request.hint is not None and unet.image and not unet.image_hint:
        raise UsageError("this decoder takes no hint; export one that does, such as kandinsky-2-2-controlnet-depth")
    _check_source(request, family)
    if task == "text" and refiner:
        raise UsageError("image: this is a refiner: it needs image, pixels or the latents of a base model")
    for needed, names, met in (
        ("image", _ONLY_IMAGE, task != "text"),
        ("mask_image", _ONLY_MASK, task == "inpaint"),
        ("control_image", _ONLY_CONTROL, request.control_image is not None),
    ):
        for name in names if not met else ():
            if _is_set(request, name):
                raise UsageError(f"{name} needs {needed}")
    _check_family(request, family)
    start, end = inner_share(request.denoising_start), inner_share(request.denoising_end)
    if start is not None and end is not None and start >= end:
        raise UsageError(f"denoising_start={start} must be below denoising_end={end}")
    if request.denoising_start is not None and task == "inpaint" and request.latents is not None:
        raise UsageError("latents and denoising_start were both given: the latents handed over are given as image")
    if request.control_image is not None and "controlnets" not in family.conditions:
        raise UsageError(f"control_image: {family.label} has no ControlNets beside its network")
    if request.control_image is not None and not bundle.manifest.controlnets:
        raise UsageError(
            "control_image: this bundle holds no ControlNet; export it again with --controlnet PATH (`sdengine "
            "inspect` has the rest of the command)"
        )


def arguments_of_no_use(bundle: Bundle) -> set[str]:
    """Return the arguments that a bundle refuses, or that change none of its images, whatever the request."""
    unet, family = bundle.config("unet"), bundle.family
    assert isinstance(unet, UNetConfig)
    refiner = bool(bundle.manifest.model_index.get("requires_aesthetics_score"))
    return {
        *_of_other_families(family),
        *(_WITHOUT_STAGES if family.stages else ()),
        *(("aesthetic_score", "negative_aesthetic_score") if not refiner else ()),
        *(("hint",) if not unet.image_hint else ()),
        *(("mask_image",) if unet.image and not unet.inpaints else ()),
        *(("strength",) if unet.inpaints and not family.strength_of_inpainting else ()),
        *(("long_prompt",) if not family.text.chunks else ()),
        *(("watermark",) if not family.watermark else ()),
    }


def _of_other_families(family: Family) -> dict[str, str]:
    """Return the arguments that only other families have, with the label of such a family."""
    return {n: other.label for other in FAMILIES.values() for n in other.own_arguments if n not in family.own_arguments}


def _check_family(request: Request, family: Family) -> None:
    """Check that no argument of another family is set."""
    others = _of_other_families(family)
    for name, label in others.items():
        if _is_set(request, name):
            raise UsageError(f"{name} is {label}'s; this bundle is of the family {family.name}")


_FOR_EMBEDS = (
    "prompt",
    "negative_prompt",
    "clip_skip",
    "long_prompt",
    "weighting",
    "num_images_per_prompt",
    "seed",
    "generator",
    "rng",
    "latents",
    "loras",
    "cross_attention_kwargs",
    "prior_num_inference_steps",
    "prior_guidance_scale",
    "prior_callback_on_step_end",
    "image_embeds",
    "negative_image_embeds",
    "images_and_prompts",
    "weights",
    "negative_prior_prompt",
    "output_type",
)
"""Arguments that have an effect if only embeddings of images are made (``output_type="embeds"``)."""


def check_embeds(request: Request, family: Family) -> list[str]:
    """Check a request for embeddings of images; return a warning for each argument that has no effect.

    Raises:
        UsageError: the family has no prior, or the request does not suit it.

    """
    _check_source(request, family)
    _check_family(request, family)
    unused = [field.name for field in fields(Request) if field.name not in _FOR_EMBEDS and _is_set(request, field.name)]
    if np.ndim(request.latents) == 4:
        unused.append("latents of four axes")
    return [f"{name} has no effect: output_type='embeds' generates no image" for name in unused]


_WITHOUT_STAGES = ("masked_image_latents", "padding_mask_crop", "denoising_start", "denoising_end", "guidance_rescale")
_TEXT_ONLY = ("negative_prompt", "prior_num_inference_steps", "prior_guidance_scale", "negative_prior_prompt")


def _check_source(request: Request, family: Family) -> None:
    """Check that an image is generated from one source: a prompt, embeddings of images, or texts and images mixed.

    Raises:
        UsageError: there is no source or more than one, or an argument belongs to another source.

    """
    if not family.stages:
        if request.output_type == "embeds":
            raise UsageError("output_type='embeds' is for a prior, which this bundle has not")
        return
    sources = [n for n in ("prompt", "image_embeds", "images_and_prompts") if getattr(request, n) is not None]
    if len(sources) != 1:
        problem = "there is no prompt" if not sources else f"{' and '.join(sources)} were given"
        raise UsageError(f"{problem}: give one of prompt, image_embeds and images_and_prompts")
    for name in _WITHOUT_STAGES:
        if _is_set(request, name):
            raise UsageError(f"{name} has no meaning for {family.label}")
    if request.image_embeds is not None:
        for name in _TEXT_ONLY:
            if _is_set(request, name):
                raise UsageError(f"{name} goes with a prompt, not with image_embeds: the prior has nothing to do")
    elif request.negative_image_embeds is not None:
        raise UsageError("negative_image_embeds goes with image_embeds; beside a prompt, give negative_prompt")
    if request.images_and_prompts is not None and len(request.images_and_prompts) != len(request.weights or ()):
        raise UsageError(
            f"images_and_prompts holds {len(request.images_and_prompts)} entries, weights "
            f"{len(request.weights or ()) or 'none'}: give a weight for each"
        )
    if request.images_and_prompts is None:
        for name in ("weights", "negative_prior_prompt"):
            if _is_set(request, name):
                raise UsageError(f"{name} needs images_and_prompts")


def without_effect(
    request: Request, task: str, model_index: Mapping[str, object], *, guided: bool, controlnets: int = 0
) -> list[str]:
    """Return a warning for each argument that is set and has no effect, as it has none in diffusers."""
    warnings = []
    if controlnets and request.image is not None and request.control_image is None:
        warnings.append(
            "image alone is image-to-image, and the bundle's ControlNets are not used: give them their image as "
            "control_image"
        )

    def warn(name: str, reason: str) -> None:
        if _is_set(request, name):
            warnings.append(f"{name} has no effect {reason}")

    aesthetic = bool(model_index.get("requires_aesthetics_score"))
    if not guided:
        warn("guidance_rescale", "without guidance (guidance_scale above 1)")
    if inner_share(request.denoising_start) is not None:
        warn("strength", "beside denoising_start")
    elif request.denoising_start is not None:
        warnings.append(
            f"denoising_start={request.denoising_start} does not set where to begin, as in diffusers: strength does, "
            "and the image is taken without noise"
        )
    if request.denoising_end == 0:
        warnings.append("denoising_end=0.0 has no effect, as in diffusers: denoising goes to the end")
    levels = request.sigmas if request.timesteps is None else request.timesteps
    if levels is not None:
        warn("num_inference_steps", "beside timesteps or sigmas")
    if not aesthetic:
        for name in ("aesthetic_score", "negative_aesthetic_score"):
            warn(name, "on a checkpoint that was trained without: refiners have it")
    else:
        for name in ("target_size", "negative_target_size"):
            warn(name, "on a refiner: the aesthetic score stands in its place")
    if task == "text" and (request.negative_original_size is None or request.negative_target_size is None):
        for name in ("negative_original_size", "negative_target_size", "negative_crops_coords_top_left"):
            warn(name, "unless negative_original_size and negative_target_size are both given")
    if task != "text" and not aesthetic:
        warn("negative_crops_coords_top_left", "here: crops_coords_top_left holds for the negative prompt too")
    return warnings
