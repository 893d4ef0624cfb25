"""A job: a request with all defaults filled in and all input images read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...engines.families import Stage
from ...engines.scheduler_fixes import Fix
from ..prompt.prompt_request import PromptRequest
from .crop import Crop
from .request import Request

__all__ = ["EmbedsJob", "Job", "StageJob"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """A stage before the image (a prior) with its number of steps and its guidance scale."""

    stage: Stage
    steps: int
    guidance_scale: float


@dataclass(frozen=True, kw_only=True)
class EmbedsJob:
    """A request for embeddings of images, with all defaults filled in.

    Attributes:
        request: as the user made it.
        prompts: the prompts, or their embeddings.
        images: B * n, the number of images.
        stages: the stages before the image.
        warnings: how images were read, and arguments that have no effect.

    """

    request: Request
    prompts: PromptRequest
    images: int
    stages: tuple[StageJob, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Job(EmbedsJob):
    """A request for images, with all defaults filled in and all input images read.

    Attributes:
        task: ``text`` (text-to-image), ``image`` (image-to-image) or ``inpaint``.
        height: of the images, in pixels.
        width: of the images, in pixels.
        factor: of the VAE: pixels along a side for one latent pixel.
        steps: number of steps; None if timesteps or sigmas are set.
        guidance_scale: the request's, or the family's default.
        guided: whether there is classifier-free guidance, so that each sample has two rows.
        strength: share of the steps to take; None if denoising starts from pure noise.
        distilled: whether strength shortens the teacher's schedule and not the student's (LCM's image-to-image).
        pixels: float32 [N, height, width, 3], the images to start from.
        image_latents: float32 [N, C, h, w], the images to start from, if they are latents.
        mask: float32 [N, height, width], 1 is repainted.
        crop: the region of the image that is generated; None is the whole image.
        hint: float32 [N, H, W, 3], the control image of a Kandinsky decoder.
        control_images: for each ControlNet float32 [N, height, width, 3].
        control_scales: for each ControlNet the factor of its residuals.
        control_windows: for each ControlNet (start, end), the shares of the steps between which it runs.
        scheduler_fixes: corrections of outdated scheduler configs that diffusers makes for this task.

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
    control_images: tuple[F32, ...]
    control_scales: tuple[float, ...]
    control_windows: tuple[tuple[float, float], ...]
    scheduler_fixes: tuple[Fix, ...]
