"""A request and a bundle -> a job: everything decided and checked, nothing computed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from .fitness import check_task, inner_share, without_effect
from .input_images import (
    Picture,
    array_from,
    as_latents,
    load_pictures,
    mask_array,
    natural_size,
    picture_size,
    pixel_array,
)
from .pil_images import as_bytes
from .request import IMAGES_MOST, Request

__all__ = ["Job", "StageJob", "resolve"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """What is denoised before the image: how many steps, and how it is guided."""

    stage: Stage
    steps: int
    guidance_scale: float


@dataclass(frozen=True, kw_only=True)
class Job:
    """A request whose every question is answered.

    Attributes:
        request: as given.
        task: ``text``, ``image`` or ``inpaint``.
        prompts: the texts, or their embeddings.
        images: B * n, how many are drawn.
        height: pixels.
        width: pixels.
        factor: pixels per latent.
        steps: of the solver; None where timesteps or sigmas are given.
        guidance_scale: resolved.
        guided: whether there are negative rows.
        strength: of the schedule, or None where it starts from pure noise.
        distilled: whether strength shortens the teacher's schedule and not the student's (LCM's image-to-image).
        pixels: float32 [N, height, width, 3], the picture to start from.
        picture_latents: float32 [N, C, h, w], if it was given as latents.
        mask: float32 [N, height, width], 1 is repainted.
        crop: the part of the picture that is drawn, if not the whole.
        stages: what is denoised before.
        hint: float32 [N, H, W, 3], what the network is given beside the noise.
        hints: per ControlNet float32 [N, height, width, 3].
        control_scales: per ControlNet.
        control_windows: per ControlNet (start, end).
        warnings: how pictures were read, and arguments that have no effect.

    """

    request: Request
    task: str
    prompts: PromptRequest
    images: int
    height: int
    width: int
    factor: int
    steps: int | None
    guidance_scale: float
    guided: bool
    strength: float | None
    distilled: bool
    pixels: F32 | None
    picture_latents: F32 | None
    mask: F32 | None
    crop: Crop | None
    stages: tuple[StageJob, ...]
    hint: F32 | None
    hints: tuple[F32, ...]
    control_scales: tuple[float, ...]
    control_windows: tuple[tuple[float, float], ...]
    scheduler_fixes: tuple[Fix, ...]
    warnings: tuple[str, ...]


def resolve(request: Request, bundle: Bundle) -> Job:
    """Decide everything about a request.

    Raises:
        UsageError: something cannot be met as given.

    """
    manifest = bundle.manifest
    unet, vae, family = bundle.config("unet"), bundle.autoencoder, bundle.family
    assert isinstance(unet, UNetConfig)
    pipeline_class = str(manifest.model_index.get("_class_name", ""))
    task = "inpaint" if request.mask_image is not None else "image" if request.image is not None else "text"
    controlled = request.control_image is not None
    check_task(request, task, unet, bundle)
    defaults = family.defaults_for(pipeline_class, task, controlled=controlled)
    prompts = _prompts(request)
    total = prompts.batch * request.num_images_per_prompt
    if total > IMAGES_MOST:
        raise UsageError(f"{total} images in one call; {IMAGES_MOST} are the most, so call several times")
    notes = generator_notes(request.generator, request.rng)
    latents = None if request.image is None else as_latents(request.image, vae.latent)
    pictures = [] if request.image is None or latents is not None else load_pictures(request.image, "image", notes)
    hints = _load_hints(request, bundle, prompts.batch, total, notes)
    if family.sizes == "rounded":
        height, width = _rounded_size(request, task, bundle, len(unet.down), latents, notes)
    else:
        height, width = _size(request, task, bundle, vae.factor, latents, pictures, hints)
    _check_count("image", len(pictures) or (0 if latents is None else len(latents)), total)
    loaded = load_pictures(request.mask_image, "mask_image", notes, masks=True) if task == "inpaint" else []
    _check_count("mask_image", len(loaded), total)
    crop = _crop(request, pictures, loaded, height, width)
    if crop is not None:
        pictures, loaded = [crop.cut(crop.picture, height, width)], [crop.cut(crop.mask, height, width)]
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
        strength=_strength(request, task, defaults, taken=task != "inpaint" or family.strength_of_inpainting),
        distilled=pipeline_class.startswith("LatentConsistencyModel") and task == "image" and not controlled,
        pixels=pixel_array(pictures, height, width, resample=family.resample) if pictures else None,
        picture_latents=latents,
        mask=mask_array(loaded, height, width) if loaded else None,
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
        warnings=(*notes, *without_effect(request, task, manifest.model_index, guided=guided)),
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


def _prompts(request: Request) -> PromptRequest:
    """Return the prompts; where embeddings of pictures stand in their place, or a mixture, as many empty ones."""
    given = {name: _embeds(request, name) for name in _PROMPT_FIELDS}
    if request.image_embeds is not None:
        given["prompt"] = [""] * len(request.image_embeds)
    elif request.images_and_prompts is not None:
        given["prompt"] = ""
    return PromptRequest(**given)


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
    """Return the hint, which is taken as it is: one picture, one for each prompt or one for each image."""
    if request.hint is None:
        return None
    pictures = load_pictures(request.hint, "hint", notes)
    if len(pictures) not in (1, prompts, total):
        raise UsageError(f"hint: {len(pictures)} pictures for {prompts} prompts: give one, or one for each prompt")
    spec = next(iter(bundle.component("hint").graphs.values())).spec
    factor = bundle.autoencoder.factor
    _, *needed, _ = spec.input("image").resolve({"S": 1, "h": height // factor, "w": width // factor})
    for picture in pictures:
        if list(picture_size(picture)) != needed:
            found = picture_size(picture)
            raise UsageError(
                f"hint is {found[1]}x{found[0]} pixels, where {width}x{height} are drawn and {needed[1]}x{needed[0]} "
                "are needed: give a hint of that size, or height and width"
            )
    return pixel_array(pictures, *needed)


def _embeds(request: Request, name: str) -> Any:
    value = getattr(request, name)
    return array_from(value) if name.endswith("embeds") and value is not None else value


def _load_hints(request: Request, bundle: Bundle, prompts: int, total: int, notes: list[str]) -> list[list[Picture]]:
    """Return the pictures of each ControlNet: one, one for each prompt, or one for each image."""
    if request.control_image is None:
        return []
    count = len(bundle.manifest.controlnets)
    given = request.control_image
    per_net = list(given) if isinstance(given, (list, tuple)) and count > 1 else [given]
    if per_net and all(isinstance(one, (list, tuple)) for one in per_net) and count > 1:
        lengths = {len(one) for one in per_net}
        if lengths != {count}:
            raise UsageError(
                f"control_image: a list in a list holds the pictures of one prompt, one for each of the {count} "
                f"ControlNets, not {sorted(lengths)}"
            )
        per_net = [list(net) for net in zip(*per_net, strict=True)]
    if len(per_net) != count:
        raise UsageError(
            f"control_image: {len(per_net)} given, this bundle holds {count} ControlNets; give one for each"
        )
    loaded = [load_pictures(one, "control_image", notes, signed=True) for one in per_net]
    for pictures in loaded:
        if len(pictures) not in (1, prompts, total):
            raise UsageError(
                f"control_image: {len(pictures)} pictures for {prompts} prompts: give one, or one for each prompt"
            )
    return loaded


def _crop(
    request: Request, pictures: Sequence[Picture], masks: Sequence[Picture], height: int, width: int
) -> Crop | None:
    """Return the region to draw in, if only a region is to be drawn."""
    padding = request.padding_mask_crop
    if padding is None:
        return None
    if len(pictures) != 1 or len(masks) != 1:
        raise UsageError("padding_mask_crop takes one image, as a picture, and one mask_image")
    if request.output_type != "pil":
        raise UsageError(
            f"padding_mask_crop pastes into the picture: output_type must be pil, not {request.output_type}"
        )
    picture, mask = _all_pil([pictures[0], masks[0]])
    return crop_around(picture, mask, padding=padding, height=height, width=width)


def _all_pil(pictures: Sequence[Picture]) -> list[Image.Image]:
    found = [as_bytes(picture) for picture in pictures if isinstance(picture, Image.Image)]
    if len(found) < len(pictures):
        raise UsageError("padding_mask_crop takes PIL images or paths, not arrays")
    return found


def _size(
    request: Request,
    task: str,
    bundle: Bundle,
    factor: int,
    latents: F32 | None,
    pictures: Sequence[Picture],
    hints: Sequence[Sequence[Picture]],
) -> tuple[int, int]:
    """Height and width: as asked, else of the picture (inpainting without ControlNet: the bundle's), else the bundle's.

    These are the rules of diffusers' pipelines.
    """
    found = bundle.manifest.default_size
    if latents is not None:
        found = (latents.shape[2] * factor, latents.shape[3] * factor)
    elif pictures and (task == "image" or hints):
        found = natural_size(pictures[0], factor)
    elif hints and task == "text":
        found = natural_size(hints[0][0], factor)
    height = found[0] if request.height is None else request.height
    width = found[1] if request.width is None else request.width
    if latents is not None and (height, width) != found:
        raise UsageError(f"the latents are of a picture of {found[1]}x{found[0]} pixels, not {width}x{height}")
    axes = bundle.manifest.components["denoiser"].graphs
    spec = next(iter(axes.values())).spec
    for name, side, axis in (("height", height, "h"), ("width", width, "w")):
        allowed = spec.axes[axis]
        _check_side(name, side, factor, allowed.min * factor, allowed.max * factor)
    return height, width


def _rounded_size(
    request: Request, task: str, bundle: Bundle, levels: int, latents: F32 | None, notes: list[str]
) -> tuple[int, int]:
    """Height and width as asked, else the bundle's, rounded up to what the networks can draw.

    diffusers rounds to the square of what a latent covers, but not where it starts from a picture; there, only what
    the UNet cannot draw is rounded.
    """
    factor = bundle.autoencoder.factor
    multiple = bundle.family.size_multiple(factor, levels) if task == "image" else factor**2
    if latents is not None:
        asked = (latents.shape[2] * factor, latents.shape[3] * factor)
        given = (request.height or asked[0], request.width or asked[1])
        if given != asked:
            raise UsageError(f"the latents are of a picture of {asked[1]}x{asked[0]} pixels, not {given[1]}x{given[0]}")
    else:
        default = bundle.manifest.default_size
        asked = (request.height or default[0], request.width or default[1])
    height, width = (-(-side // multiple) * multiple for side in asked)
    if (height, width) != asked:
        if latents is not None:
            raise UsageError(f"image, as latents, must be of a picture whose sides are multiples of {multiple} pixels")
        notes.append(
            f"drawn at {width}x{height}, not at {asked[1]}x{asked[0]}: sides are multiples of {multiple} pixels"
        )
    axes = next(iter(bundle.component("denoiser").graphs.values())).spec.axes
    for name, side, axis in (("height", height, "h"), ("width", width, "w")):
        _check_side(name, side, factor, axes[axis].min * factor, axes[axis].max * factor)
    return height, width


def _check_side(name: str, side: int, factor: int, least: int, most: int) -> None:
    nearest = min(max(round(side / factor) * factor, least), most)
    if side % factor:
        raise UsageError(f"{name}={side} is no multiple of {factor}; the nearest that works is {nearest}")
    if not least <= side <= most:
        raise UsageError(
            f"{name}={side} is outside this bundle's {least} to {most} pixels; the nearest that works is {nearest}"
        )


def _check_count(name: str, given: int, total: int) -> None:
    if given and total % given:
        raise UsageError(f"{name}: {given} given for {total} images: give one, or one for each")


def _steps(request: Request, defaults: Defaults) -> int | None:
    """Return the solver's steps; as in diffusers, timesteps and sigmas go before their number."""
    if request.timesteps is not None or request.sigmas is not None:
        return None
    return defaults.num_inference_steps if request.num_inference_steps is None else request.num_inference_steps


def _strength(request: Request, task: str, defaults: Defaults, *, taken: bool) -> float | None:
    if not taken and request.strength is not None:
        raise UsageError("strength: this family's inpainting takes none, it starts from noise")
    if task == "text" or inner_share(request.denoising_start) is not None:
        return None
    strength = defaults.strength if request.strength is None else request.strength
    # Inpainting at full strength starts from pure noise; image-to-image noises its picture as far as it goes.
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
    """Return what was given and can be written as JSON, for the record inside a picture."""
    plain = (str, int, float, bool, list, tuple)
    left_out = ("prompt", "negative_prompt", "seed", "height", "width", "output_type", "callback_on_step_end", "loras")
    defaults = Request()
    found: dict[str, Any] = {
        name: value
        for name in request.__dataclass_fields__
        if name not in left_out
        and isinstance(value := getattr(request, name), plain)
        and value != getattr(defaults, name)
    }
    if options := described_config(request.scheduler, request.scheduler_config):
        found["scheduler_config"] = options
    return found
