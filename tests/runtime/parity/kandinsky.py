"""The same arguments given to diffusers' prior and decoder of Kandinsky 2.2, one after the other, and to ours."""

import functools
from typing import Any

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray

from ...bundles import checkpoint_of
from .oracle import their_warnings

__all__ = ["decoder", "prior", "their_embeds", "their_mixture", "theirs"]

_CLASSES = {
    ("text", False): "KandinskyV22Pipeline",
    ("image", False): "KandinskyV22Img2ImgPipeline",
    ("inpaint", False): "KandinskyV22InpaintPipeline",
    ("text", True): "KandinskyV22ControlnetPipeline",
    ("image", True): "KandinskyV22ControlnetImg2ImgPipeline",
}
_OF_PRIOR = ("prompt", "negative_prompt", "num_images_per_prompt")
F32 = NDArray[np.float32]


@functools.cache
def prior() -> Any:
    """Return diffusers' prior pipeline."""
    with their_warnings():
        pipeline = diffusers.KandinskyV22PriorPipeline.from_pretrained(checkpoint_of("kandinsky_prior"))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@functools.cache
def _parts(kind: str) -> dict[str, Any]:
    with their_warnings():
        pipeline = diffusers.DiffusionPipeline.from_pretrained(checkpoint_of(kind))
    return dict(pipeline.components)


def decoder(kind: str, task: str, *, hint: bool) -> Any:
    """Return a fresh decoder pipeline of diffusers over shared networks."""
    pipeline = getattr(diffusers, _CLASSES[task, hint])(**_parts(kind))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def their_embeds(generator: Any, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embeddings of prompts, and the negative ones."""
    given = {name: arguments[name] for name in _OF_PRIOR if name in arguments}
    for name in ("num_inference_steps", "guidance_scale"):
        if f"prior_{name}" in arguments:
            given[name] = arguments[f"prior_{name}"]
    with their_warnings():
        return tuple(prior()(**given, generator=generator, return_dict=False))


def their_mixture(generator: Any, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the embeddings that ``interpolate`` makes."""
    names = {"prior_num_inference_steps": "num_inference_steps", "prior_guidance_scale": "guidance_scale"}
    with their_warnings():
        output = prior().interpolate(**{names.get(k, k): v for k, v in arguments.items()}, generator=generator)
    return output.image_embeds, output.negative_image_embeds


def theirs(
    kind: str,
    embeds: tuple[torch.Tensor, torch.Tensor],
    generator: Any,
    *,
    scheduler: str | None = None,
    **arguments: Any,
) -> F32:
    """Draw with diffusers' decoder, from embeddings.

    Height and width are given to image-to-image the wrong way round, as its pipelines take them.
    """
    task = "inpaint" if "mask_image" in arguments else "image" if "image" in arguments else "text"
    pipeline = decoder(kind, task, hint="hint" in arguments)
    if scheduler is not None:
        pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    given = dict(arguments)
    if task == "image":
        given["height"], given["width"] = given["width"], given["height"]
    count = len(embeds[0])
    if "hint" in given:
        given["hint"] = given["hint"].expand(count, -1, -1, -1)
    for name in ("image", "mask_image"):
        if name in given:
            listed = given[name] if isinstance(given[name], list) else [given[name]]
            given[name] = [listed[i % len(listed)] for i in range(count)]
    with their_warnings():
        images = pipeline(
            image_embeds=embeds[0],
            negative_image_embeds=embeds[1],
            **given,
            generator=generator,
            output_type="np",
        ).images
    return np.asarray(images, np.float32)
