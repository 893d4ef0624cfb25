"""A request whose every question is answered: what is generated, and from what."""

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
        control_images: per ControlNet float32 [N, height, width, 3].
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
    control_images: tuple[F32, ...]
    control_scales: tuple[float, ...]
    control_windows: tuple[tuple[float, float], ...]
    scheduler_fixes: tuple[Fix, ...]
