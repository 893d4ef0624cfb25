"""A request and a bundle -> a job: everything decided and checked, nothing computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.families import Defaults, Stage
from ...engines.nets.config import UNetConfig
from ...engines.scheduler_fixes import Fix, fixes_for
from ..latents.seeds import generator_notes
from ..prompt.prompt_request import PromptRequest
from ..schedule.choice import described_config
from .crop import Crop, crop_around
from .fitness import check_embeds, check_task, inner_share, without_effect
from .input_images import (
    InputImage,
    array_from,
    as_latents,
    image_size_of,
    load_images,
    mask_array,
    natural_size,
    pixel_array,
)
from .pil_images import as_bytes
from .request import IMAGES_MOST, Request

__all__ = ["EmbedsJob", "Job", "StageJob", "prompts_of", "resolve", "resolve_embeds"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """The denoising of a stage before the image: its steps and guidance."""

    stage: Stage
    steps: int
    guidance_scale: float


@dataclass(frozen=True, kw_only=True)
class EmbedsJob:
    """A request for embeddings of images whose every question is answered.

    Attributes:
        request: as the user made it.
        prompts: the texts, or their embeddings.
        images: B * n, how many are asked for.
        stages: what is denoised before an image.
        warnings: how images were read, and arguments that have no effect.

    """

    request: Request
    prompts: PromptRequest
    images: int
    stages: tuple[StageJob, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Job(EmbedsJob):
    """A request for images whose every question is answered.

    Attributes:
        task: ``text``, ``image`` or ``inpaint``.
        height: pixels.
        width: pixels.
        factor: pixels per latent.
        steps: of the solver; None where timesteps or sigmas are set.
        guidance_scale: resolved.
        guided: whether there are negative rows.
        strength: of the schedule, or None where it starts from pure noise.
        distilled: whether strength shortens the teacher's schedule and not the student's (LCM's image-to-image).
        pixels: float32 [N, height, width, 3], the image to start from.
        image_latents: float32 [N, C, h, w], if the image is latents.
        mask: float32 [N, height, width], 1 is repainted.
        crop: the part of the image that is generated, if not the whole.
        hint: float32 [N, H, W, 3], an input of the network beside the noise.
        hints: per ControlNet float32 [N, height, width, 3].
        control_scales: per ControlNet.
        control_windows: per ControlNet (start, end).

    """

    task: str
    height: int
    width: int
    factor: int
    steps: int | None
    guidance_scale: float
    guided: bool
    strength: float | None
    distilled: bool
    pixels: F32 | None
    image_latents: F32 | None
    mask: F32 | None
    crop: Crop | None
    hint: F32 | None
    hints: tuple[F32, ...]
    control_scales: tuple[float, ...]
    control_windows: tuple[tuple[float, float], ...]
    scheduler_fixes: tuple[Fix, ...]


def resolve_embeds(request: Request, bundle: Bundle) -> EmbedsJob:
    """Decide everything about a request for embeddings of images, in which a decoder takes no part.

    Raises:
        UsageError: something cannot be met.

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
    """Decide everything about a request.

    Raises:
        UsageError: something cannot be met.

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
    hints = _load_hints(request, bundle, prompts.batch, total, notes)
    if family.sizes == "rounded":
        height, width = _rounded_size(request, task, bundle, len(unet.down), latents, notes)
    else:
        height, width = _size(request, task, bundle, vae.factor, latents, images_in, hints)
    _check_count("image", len(images_in) or (0 if latents is None else len(latents)), total)
    masks = load_images(request.mask_image, "mask_image", notes, masks=True) if task == "inpaint" else []
    _check_count("mask_image", len(masks), total)
    crop = _crop(request, images_in, masks, height, width)
    if crop is not None:
        images_in, masks = [crop.cut(crop.image, height, width)], [crop.cut(crop.mask, height, width)]
        hints = [[crop.cut(hint, height, width) for hint in _all_pil(net)] for net in hints]
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
        hints=tuple(pixel_array(net, height, width) for net in hints),
        control_scales=_per_net(
            "controlnet_conditioning_scale",
            defaults.controlnet_conditioning_scale
            if request.controlnet_conditioning_scale is None
            else request.controlnet_conditioning_scale,
            len(hints),
        ),
        control_windows=_windows(request, len(hints)),
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
    """Return the prompts; empty ones where embeddings of images or a mixture replace them."""
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
    """Return the hint, which is never resized: one image, one for each prompt or one for each generated image."""
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


def _load_hints(request: Request, bundle: Bundle, prompts: int, total: int, notes: list[str]) -> list[list[InputImage]]:
    """Return the images of each ControlNet: one, one for each prompt, or one for each generated image."""
    if request.control_image is None:
        return []
    count = len(bundle.manifest.controlnets)
    value = request.control_image
    per_net = list(value) if isinstance(value, (list, tuple)) and count > 1 else [value]
    if per_net and all(isinstance(one, (list, tuple)) for one in per_net) and count > 1:
        counts = {len(one) for one in per_net}
        if counts != {count}:
            raise UsageError(
                f"control_image: a list in a list holds the images of one prompt, one for each of the {count} "
                f"ControlNets, not {sorted(counts)}"
            )
        per_net = [list(net) for net in zip(*per_net, strict=True)]
    if len(per_net) != count:
        raise UsageError(
            f"control_image: {len(per_net)} given, this bundle holds {count} ControlNets; give one for each"
        )
    loaded = [load_images(one, "control_image", notes, signed=True) for one in per_net]
    for images in loaded:
        if len(images) not in (1, prompts, total):
            raise UsageError(
                f"control_image: {len(images)} images for {prompts} prompts: give one, or one for each prompt"
            )
    return loaded


def _crop(
    request: Request, images: Sequence[InputImage], masks: Sequence[InputImage], height: int, width: int
) -> Crop | None:
    """Return the region to generate, if it is not the whole image."""
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


def _size(
    request: Request,
    task: str,
    bundle: Bundle,
    factor: int,
    latents: F32 | None,
    images: Sequence[InputImage],
    hints: Sequence[Sequence[InputImage]],
) -> tuple[int, int]:
    """Height and width of the request, else of the image (except in inpainting without ControlNet), else the bundle's.

    These are the rules of diffusers' pipelines.
    """
    size = bundle.manifest.default_size
    if latents is not None:
        size = (latents.shape[2] * factor, latents.shape[3] * factor)
    elif images and (task == "image" or hints):
        size = natural_size(images[0], factor)
    elif hints and task == "text":
        size = natural_size(hints[0][0], factor)
    height = size[0] if request.height is None else request.height
    width = size[1] if request.width is None else request.width
    if latents is not None and (height, width) != size:
        raise UsageError(f"the latents are of an image of {size[1]}x{size[0]} pixels, not {width}x{height}")
    axes = bundle.manifest.components["denoiser"].graphs
    spec = next(iter(axes.values())).spec
    for name, side, axis in (("height", height, "h"), ("width", width, "w")):
        allowed = spec.axes[axis]
        of_image = getattr(request, name) is None and latents is None and size != bundle.manifest.default_size
        _check_side(name, side, factor, allowed.min * factor, allowed.max * factor, of_image=of_image)
    return height, width


def _rounded_size(
    request: Request, task: str, bundle: Bundle, levels: int, latents: F32 | None, notes: list[str]
) -> tuple[int, int]:
    """Height and width of the request, else the bundle's, rounded up to what the networks can run.

    diffusers rounds to the square of what a latent covers, but not where it starts from an image; there, only
    sizes that the UNet cannot run are rounded.
    """
    factor = bundle.autoencoder.factor
    multiple = bundle.family.size_multiple(factor, levels) if task == "image" else bundle.family.rounds_to(factor)
    if latents is not None:
        requested = (latents.shape[2] * factor, latents.shape[3] * factor)
        explicit = (request.height or requested[0], request.width or requested[1])
        if explicit != requested:
            raise UsageError(
                f"the latents are of an image of {requested[1]}x{requested[0]} pixels, not {explicit[1]}x{explicit[0]}"
            )
    else:
        default = bundle.manifest.default_size
        requested = (request.height or default[0], request.width or default[1])
    height, width = (-(-side // multiple) * multiple for side in requested)
    if (height, width) != requested:
        if latents is not None:
            raise UsageError(f"image, as latents, must be of an image whose sides are multiples of {multiple} pixels")
        notes.append(
            f"generated at {width}x{height}, not at {requested[1]}x{requested[0]}: sides are multiples of {multiple} "
            "pixels"
        )
    axes = next(iter(bundle.component("denoiser").graphs.values())).spec.axes
    for name, side, axis in (("height", height, "h"), ("width", width, "w")):
        _check_side(name, side, factor, axes[axis].min * factor, axes[axis].max * factor)
    return height, width


def _check_side(name: str, side: int, factor: int, least: int, most: int, *, of_image: bool = False) -> None:
    nearest = min(max(round(side / factor) * factor, least), most)
    works = f"the nearest that works is {nearest}"
    if of_image:
        works += "; it is the image's own: give height and width to generate at another size"
    if side % factor:
        raise UsageError(f"{name}={side} is no multiple of {factor}; {works}")
    if not least <= side <= most:
        raise UsageError(
            f"{name}={side} is outside this bundle's {least} to {most} pixels; {works}; an export for other sizes "
            "(--sizes, or sizes= of from_pretrained) takes others"
        )


def _check_count(name: str, count: int, total: int) -> None:
    if count and total % count:
        raise UsageError(f"{name}: {count} given for {total} images: give one, or one for each")


def _steps(request: Request, defaults: Defaults) -> int | None:
    """Return the solver's steps; as in diffusers, timesteps and sigmas go before their number."""
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


def _per_net(name: str, value: float | Sequence[float], count: int) -> tuple[float, ...]:
    if isinstance(value, (int, float)):
        return (value,) * count
    if count and len(value) != count:
        raise UsageError(f"{name}: {len(value)} given for {count} ControlNets; give one, or one for each")
    return tuple(value)


def _windows(request: Request, count: int) -> tuple[tuple[float, float], ...]:
    starts = _per_net("control_guidance_start", request.control_guidance_start, count)
    ends = _per_net("control_guidance_end", request.control_guidance_end, count)
    for start, end in zip(starts, ends, strict=True):
        if not 0 <= start < end <= 1:
            raise UsageError(
                f"control_guidance_start={start} and control_guidance_end={end}: need 0 <= start < end <= 1"
            )
    return tuple(zip(starts, ends, strict=True))


def settings_of(request: Request) -> Mapping[str, Any]:
    """Return what is set and can be written as JSON, for the record inside an image file."""
    left_out = ("prompt", "negative_prompt", "seed", "height", "width", "output_type", "callback_on_step_end", "loras")
    defaults = Request()
    settings: dict[str, Any] = {
        name: _written(value)
        for name in request.__dataclass_fields__
        if name not in left_out
        and isinstance(value := getattr(request, name), (*_PLAIN, list, tuple))
        and value != getattr(defaults, name)
    }
    if options := described_config(request.scheduler, request.scheduler_config):
        settings["scheduler_config"] = options
    return settings


_PLAIN = (str, int, float, bool)


def _written(value: Any) -> Any:
    """Return a value as JSON has it: files by their paths, other objects in a list, such as images, by their kind."""
    if isinstance(value, (list, tuple)):
        return [_written(item) for item in value]
    if value is None or isinstance(value, _PLAIN):
        return value
    return str(value) if isinstance(value, Path) else f"<{type(value).__name__}>"
