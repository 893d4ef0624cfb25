"""The keyword arguments of a request, as type checkers and editors see them.

They are those of :class:`~.request.Request`, which says what they mean; a test compares the two.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from ..prompt.layout import LongPrompt

__all__ = ["RequestArguments"]


class RequestArguments(TypedDict, total=False):
    """What a call takes beside ``prompt``."""

    prompt_2: str | Sequence[str] | None
    negative_prompt: str | Sequence[str] | None
    negative_prompt_2: str | Sequence[str] | None
    prompt_embeds: Any
    negative_prompt_embeds: Any
    pooled_prompt_embeds: Any
    negative_pooled_prompt_embeds: Any
    clip_skip: int | None
    long_prompt: LongPrompt
    weighting: bool
    height: int | None
    width: int | None
    num_inference_steps: int | None
    timesteps: Sequence[float] | None
    sigmas: Sequence[float] | None
    scheduler: Any
    scheduler_config: Mapping[str, object] | str | Path | None
    eta: float
    guidance_scale: float | None
    guidance_rescale: float
    num_images_per_prompt: int
    seed: int | Sequence[int] | None
    generator: Any
    rng: str
    latents: Any
    image: Any
    strength: float | None
    mask_image: Any
    masked_image_latents: Any
    padding_mask_crop: int | None
    control_image: Any
    controlnet_conditioning_scale: float | Sequence[float] | None
    guess_mode: bool
    control_guidance_start: float | Sequence[float]
    control_guidance_end: float | Sequence[float]
    denoising_start: float | None
    denoising_end: float | None
    original_size: tuple[int, int] | None
    crops_coords_top_left: tuple[int, int]
    target_size: tuple[int, int] | None
    negative_original_size: tuple[int, int] | None
    negative_crops_coords_top_left: tuple[int, int]
    negative_target_size: tuple[int, int] | None
    aesthetic_score: float
    negative_aesthetic_score: float
    original_inference_steps: int | None
    output_type: str
    watermark: bool | None
    callback_on_step_end: Callable[..., Mapping[str, Any] | None] | None
    callback_on_step_end_tensor_inputs: Sequence[str]
