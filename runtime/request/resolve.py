"""Makes a job of a request: checks it against the bundle, fills in the defaults, and reads its input images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.families import Defaults, Stage
from ...engines.nets.config import UNetConfig
from ...engines.scheduler_fixes import fixes_for
from ..latents.seeds import generator_notes
from ..prompt.prompt_request import PromptRequest
from .controlnet_arguments import controlnet_images, controlnet_scales, controlnet_windows
from .crop import Crop, crop_around
from .image_size import image_size
from .input_images import (
    InputImage,
    array_from,
    as_latents,
    image_size_of,
    load_images,
    mask_array,
    pixel_array,
)
from .job import EmbedsJob, Job, StageJob
from .pil_images import as_bytes
from .request import IMAGES_MOST, Request
from .request_checks import check_embeds, check_task, inner_share, without_effect

__all__ = ["prompts_of", "resolve", "resolve_embeds"]

F32 = NDArray[np.float32]


def resolve_embeds(request: Request, bundle: Bundle) -> EmbedsJob:
    """Make the job of a request for embeddings of images (``output_type="embeds"``), for which only the prior runs.

    Raises:
        UsageError: an argument does not suit the bundle, or another argument.

    """
    unused = check_embeds(request, bundle.family)
    prompts = prompts_of(request)
    return EmbedsJob(
        request=request,
        prompts=prompts,
        images=_count(request, prompts),
        stages=tuple(_stage(request, stage) for stage in bundle.family.stages),
        warnings=(*generator_notes(request.generator, request.rng), *unused),
    )


def resolve(request: Request, bundle: Bundle) -> Job:
    """Make the job of a request.

    Raises:
        UsageError: an argument does not suit the bundle, or another argument.

    """
    manifest = bundle.manifest
    unet, vae, family = bundle.config("unet"), bundle.autoencoder, bundle.family
    assert isinstance(unet, UNetConfig)
    pipeline_class = str(manifest.model_index.get("_class_name", ""))
    task = "inpaint" if request.mask_image is not None else "image" if request.image is not None else "text"
    controlled = request.control_image is not None
    check_task(request, task, unet, bundle)
    defaults = family.defaults_for(pipeline_class, task, controlled=controlled)
    prompts = prompts_of(request)
    total = _count(request, prompts)
    notes = generator_notes(request.generator, request.rng)
    latents = None if request.image is None else as_latents(request.image, vae.latent)
    images_in = [] if request.image is None or latents is not None else load_images(request.image, "image", notes)
    control_images = controlnet_images(request, bundle, prompts.batch, total, notes)
    height, width = image_size(
        request, task, bundle, latents=latents, images=images_in, control_images=control_images, notes=notes
    )
    _check_count("image", len(images_in) or (0 if latents is None else len(latents)), total)
    masks = load_images(request.mask_image, "mask_image", notes, masks=True) if task == "inpaint" else []
    _check_count("mask_image", len(masks), total)
    crop = _crop(request, images_in, masks, height, width)
    if crop is not None:
        images_in, masks = [crop.cut(crop.image, height, width)], [crop.cut(crop.mask, height, width)]
        control_images = [[crop.cut(image, height, width) for image in _all_pil(net)] for net in control_images]
    scale = defaults.guidance_scale if request.guidance_scale is None else float(request.guidance_scale)
    guided = scale > 1 and unet.guidance_width is None
    return Job(
        request=request,
        task=task,
        prompts=prompts,
        images=total,
        height=height,
        width=width,
        factor=vae.factor,
        steps=_steps(request, defaults),
        guidance_scale=scale,
        guided=guided,
        strength=_strength(request, task, defaults, supported=task != "inpaint" or family.strength_of_inpainting),
        distilled=pipeline_class.startswith("LatentConsistencyModel") and task == "image" and not controlled,
        pixels=pixel_array(images_in, height, width, resample=family.resample) if images_in else None,
        image_latents=latents,
        mask=mask_array(masks, height, width) if masks else None,
        crop=crop,
        stages=tuple(_stage(request, stage) for stage in family.stages),
        hint=_hint(request, bundle, prompts.batch, total, height, width, notes),
        control_images=tuple(pixel_array(net, height, width) for net in control_images),
        control_scales=controlnet_scales(request, defaults, len(control_images)),
        control_windows=controlnet_windows(request, len(control_images)),
        scheduler_fixes=fixes_for(manifest.family, pipeline_class, task, controlled=controlled),
        warnings=(
            *notes,
            *without_effect(request, task, manifest.model_index, guided=guided, controlnets=len(manifest.controlnets)),
        ),
    )


_PROMPT_FIELDS = (
    "prompt",
    "prompt_2",
    "negative_prompt",
    "negative_prompt_2",
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
    "clip_skip",
    "long_prompt",
    "weighting",
)


def prompts_of(request: Request) -> PromptRequest:
    """Return the prompts; they are empty if embeddings of images, or texts and images mixed, replace them."""
    fields = {name: _embeds(request, name) for name in _PROMPT_FIELDS}
    if request.image_embeds is not None:
        fields["prompt"] = [""] * len(request.image_embeds)
    elif request.images_and_prompts is not None:
        fields["prompt"] = ""
    return PromptRequest(**fields)


def _count(request: Request, prompts: PromptRequest) -> int:
    total = prompts.batch * request.num_images_per_prompt
    if total > IMAGES_MOST:
        raise UsageError(f"{total} images in one call; {IMAGES_MOST} are the most, so call several times")
    return total


def _stage(request: Request, stage: Stage) -> StageJob:
    steps, scale = request.prior_num_inference_steps, request.prior_guidance_scale
    return StageJob(
        stage=stage,
        steps=stage.num_inference_steps if steps is None else steps,
        guidance_scale=stage.guidance_scale if scale is None else scale,
    )


def _hint(
    request: Request, bundle: Bundle, prompts: int, total: int, height: int, width: int, notes: list[str]
) -> F32 | None:
    """Return the hints, float32 [N, H, W, 3]; unlike other images they are not resized.

    Raises:
        UsageError: they have another size, or there are neither one nor one for each prompt or each generated image.

    """
    if request.hint is None:
        return None
    images = load_images(request.hint, "hint", notes)
    if len(images) not in (1, prompts, total):
        raise UsageError(f"hint: {len(images)} images for {prompts} prompts: give one, or one for each prompt")
    spec = next(iter(bundle.component("hint").graphs.values())).spec
    factor = bundle.autoencoder.factor
    _, *needed, _ = spec.input("image").resolve({"S": 1, "h": height // factor, "w": width // factor})
    for image in images:
        if list(image_size_of(image)) != needed:
            size = image_size_of(image)
            raise UsageError(
                f"hint is {size[1]}x{size[0]} pixels, where {width}x{height} are generated and {needed[1]}x{needed[0]} "
                "are needed: give a hint of that size, or height and width"
            )
    return pixel_array(images, *needed)


def _embeds(request: Request, name: str) -> Any:
    value = getattr(request, name)
    return array_from(value) if name.endswith("embeds") and value is not None else value


def _crop(
    request: Request, images: Sequence[InputImage], masks: Sequence[InputImage], height: int, width: int
) -> Crop | None:
    """Return the region to generate; None is the whole image."""
    padding = request.padding_mask_crop
    if padding is None:
        return None
    if len(images) != 1 or len(masks) != 1:
        raise UsageError("padding_mask_crop takes one image, as pixels, and one mask_image")
    if request.output_type != "pil":
        raise UsageError(f"padding_mask_crop pastes into the image: output_type must be pil, not {request.output_type}")
    image, mask = _all_pil([images[0], masks[0]])
    return crop_around(image, mask, padding=padding, height=height, width=width)


def _all_pil(images: Sequence[InputImage]) -> list[Image.Image]:
    pil = [as_bytes(image) for image in images if isinstance(image, Image.Image)]
    if len(pil) < len(images):
        raise UsageError("padding_mask_crop takes PIL images or paths, not arrays")
    return pil


def _check_count(name: str, count: int, total: int) -> None:
    if count and total % count:
        raise UsageError(f"{name}: {count} given for {total} images: give one, or one for each")


def _steps(request: Request, defaults: Defaults) -> int | None:
    """Return the number of steps; None if timesteps or sigmas are set, which replace it as in diffusers."""
    if request.timesteps is not None or request.sigmas is not None:
        return None
    return defaults.num_inference_steps if request.num_inference_steps is None else request.num_inference_steps


def _strength(request: Request, task: str, defaults: Defaults, *, supported: bool) -> float | None:
    if not supported and request.strength is not None:
        raise UsageError("strength: this family's inpainting takes none, it starts from noise")
    if task == "text" or inner_share(request.denoising_start) is not None:
        return None
    strength = defaults.strength if request.strength is None else request.strength
    # Inpainting at full strength starts from pure noise; image-to-image adds noise to its image even then.
    return None if task == "inpaint" and strength == 1.0 else strength
