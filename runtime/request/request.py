"""What a caller may ask for: diffusers' names, checked, nothing filled in yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any

from ...engines.errors import UsageError, nearest
from ...engines.scalars import shortened
from ..prompt.layout import LongPrompt
from .argument import (
    ANYTHING,
    BY_CONTROLNET,
    CALLBACK,
    FLAG,
    IMAGE,
    IMAGES,
    LORA_SCALE,
    MIXED,
    NUMBER,
    PAIR,
    PIXELS_MOST,
    SCHEDULER,
    SEEDS,
    SERIES,
    SERIES_MOST,
    SHARE,
    TEXT,
    argument,
    argument_of,
    array,
    arrays,
    choice,
    whole,
)

__all__ = ["IMAGES_MOST", "OUTPUT_TYPES", "STEPS_MOST", "Request"]

OUTPUT_TYPES = ("pil", "np", "latent", "embeds")
IMAGES_MOST = 4096
"""Images of one call: all of them are in memory when it ends."""
STEPS_MOST = SERIES_MOST

_REFUSED = {
    "ip_adapter_image": "IP-Adapter is not supported yet",
    "ip_adapter_image_embeds": "IP-Adapter is not supported yet",
    "callback": "it has been replaced by callback_on_step_end",
    "callback_steps": "it has been replaced by callback_on_step_end",
    "return_dict": "a call always returns a Result",
    "guess_model": "write guess_mode",
}


@dataclass(frozen=True)
class Request:
    """One call of a pipeline. None means: not given, the family's default holds (:mod:`sdengine.engines.families`).

    Numbers may be numpy's or torch's, whole ones also floats such as 30.0; they are Python's afterwards.

    The task follows from what is given: ``image`` makes it image-to-image, ``mask_image`` inpainting,
    ``control_image`` adds the bundle's ControlNets.

    Each field says what it means, which values it takes, and how the command line writes it
    (:mod:`~sdengine.runtime.request.argument`); there is no other list of them.
    """

    prompt: str | Sequence[str] | None = argument(
        None,
        "text, or a list of B texts; with ``num_images_per_prompt`` n, B * n images are generated.",
        TEXT,
        group="Prompt",
    )
    _: KW_ONLY
    prompt_2: str | Sequence[str] | None = argument(
        None, "text for the second encoder (SDXL); the same as ``prompt`` if not given.", TEXT, group="Prompt"
    )
    negative_prompt: str | Sequence[str] | None = argument(None, "what guidance leads away from.", TEXT, group="Prompt")
    negative_prompt_2: str | Sequence[str] | None = argument(
        None, "the same for the second encoder (SDXL).", TEXT, group="Prompt"
    )
    prompt_embeds: Any = argument(
        None, "float [B, T, D] in place of ``prompt``; its siblings likewise.", array(3), group="Prompt"
    )
    negative_prompt_embeds: Any = argument(None, "float [B, T, D].", array(3), group="Prompt")
    pooled_prompt_embeds: Any = argument(None, "float [B, P] (SDXL).", array(2), group="Prompt")
    negative_pooled_prompt_embeds: Any = argument(None, "float [B, P] (SDXL).", array(2), group="Prompt")
    clip_skip: int | None = argument(None, "layers of the text encoders to skip.", whole(0, 100), group="Prompt")
    long_prompt: LongPrompt = argument(
        "truncate",
        "``truncate`` (as diffusers, with a warning) or ``chunk``.",
        choice("truncate", "chunk"),
        group="Prompt",
    )
    weighting: bool = argument(True, "whether ``(word:1.3)`` weights words.", FLAG, group="Prompt")
    height: int | None = argument(None, "pixels.", whole(1, PIXELS_MOST), group="Output")
    width: int | None = argument(None, "pixels.", whole(1, PIXELS_MOST), group="Output")
    num_inference_steps: int | None = argument(
        None,
        "steps of the solver; ``timesteps`` and ``sigmas`` go before it.",
        whole(1, STEPS_MOST),
        group="Steps",
        short=("steps",),
    )
    timesteps: Sequence[float] | None = argument(None, "custom timesteps, descending.", SERIES, group="Steps")
    sigmas: Sequence[float] | None = argument(None, "custom sigmas, descending.", SERIES, group="Steps")
    scheduler: Any = argument(
        None,
        "class name of a diffusers scheduler, or a short name; a scheduler class of diffusers, or an object, "
        "whose config holds in place of the checkpoint's; the checkpoint's if None.",
        SCHEDULER,
        group="Steps",
    )
    scheduler_config: Mapping[str, object] | str | Path | None = argument(
        None,
        "options on top of the checkpoint's scheduler config; or a whole config of diffusers "
        "(``pipe.scheduler.config``, or the path of a ``scheduler_config.json``) in place of it, whose "
        "``_class_name`` decides if ``scheduler`` does not.",
        ANYTHING,
        group="Steps",
    )
    eta: float = argument(0.0, "share of noise in DDIM and TCD.", SHARE, group="Steps")
    guidance_scale: float | None = argument(
        None,
        "1 and below generates without guidance, on one row per image.",
        NUMBER,
        group="Prompt",
        short=("guidance",),
    )
    guidance_rescale: float = argument(
        0.0,
        "share of the prediction that is rescaled to the spread of the one with text (arXiv:2305.08891), 0 to 1.",
        SHARE,
        group="Prompt",
    )
    num_images_per_prompt: int = argument(
        1,
        "images of each prompt; left at 1, a list of seeds says how many there are.",
        whole(1, IMAGES_MOST),
        group="Output",
        short=("images",),
    )
    seed: int | Sequence[int] | None = argument(
        None,
        "an int (image i gets seed + i), or one for each image; None chooses one and reports it. An image "
        "depends only on its own seed, not on the other images of the call.",
        SEEDS,
        group="Seed",
    )
    generator: Any = argument(
        None,
        "torch generators (or anything with ``initial_seed()``) in place of ``seed``: one for each image, or "
        "one whose stream all images share. As in diffusers, they go on from their state, and "
        "advance; those of CUDA give CUDA's numbers. Several images are exactly those of diffusers: "
        "inpainting of one image takes the noise of its encoding only from the first generator, and text-to-image "
        "gives negative sizes to every second row.",
        ANYTHING,
        group="Seed",
    )
    rng: str = argument(
        "cpu",
        "``cpu`` or ``cuda``: which of torch's generators a seed means. A generator's device overrides it.",
        choice("cpu", "cuda"),
        group="Seed",
    )
    latents: Any = argument(
        None,
        "float [B * n, C, h, w], the initial noise; in image-to-image, the latents to start from in "
        "place of the noised image. With a prior, float [B * n, D], its initial noise.",
        array(4, 2),
        group="Seed",
    )
    image: Any = argument(
        None,
        "images to start from: PIL, paths, arrays 0 to 1 [N, H, W, 3], or latents [N, C, h, w]. Files are "
        "read as by diffusers' ``load_image``: upright, as RGB.",
        IMAGE,
        group="Image to start from",
    )
    strength: float | None = argument(
        None, "share of the schedule that is run on ``image``, 0 to 1.", SHARE, group="Image to start from"
    )
    mask_image: Any = argument(
        None,
        "white is repainted; PIL, path or array 0 to 1 [N, H, W], of any size; transparency is ignored.",
        IMAGE,
        group="Image to start from",
        short=("mask",),
    )
    masked_image_latents: Any = argument(
        None, "float [N, C, h, w], the encoded image without the masked part.", array(4), group="Image to start from"
    )
    padding_mask_crop: int | None = argument(
        None,
        "generate only the region of the mask and this many pixels around it, instead of the whole image, and paste "
        "the result into the image.",
        whole(0, PIXELS_MOST),
        group="Image to start from",
    )
    control_image: Any = argument(
        None,
        "an image per ControlNet. With several prompts, a list of images, one for each prompt; with "
        "several ControlNets too, a list for each prompt of lists for each ControlNet. Arrays may hold -1 "
        "where an inpainting ControlNet's image is masked.",
        IMAGES,
        group="ControlNet",
    )
    controlnet_conditioning_scale: float | Sequence[float] | None = argument(
        None,
        "strength of each ControlNet, a number or a list.",
        BY_CONTROLNET,
        group="ControlNet",
        short=("control-scale",),
    )
    guess_mode: bool = argument(False, "let the ControlNet work without prompt.", FLAG, group="ControlNet")
    control_guidance_start: float | Sequence[float] = argument(
        0.0,
        "share of the steps at which each ControlNet begins.",
        BY_CONTROLNET,
        group="ControlNet",
        short=("control-start",),
    )
    control_guidance_end: float | Sequence[float] = argument(
        1.0,
        "share of the steps at which each ControlNet ends.",
        BY_CONTROLNET,
        group="ControlNet",
        short=("control-end",),
    )
    denoising_start: float | None = argument(
        None,
        "share of the schedule that another model has run (ensemble of experts). At 0 and 1, as in diffusers, "
        "``strength`` decides where to begin, and the image is used without noise.",
        SHARE,
        group="Steps",
    )
    denoising_end: float | None = argument(
        None,
        "share of the schedule after which to stop and hand over; 0 and 1 stand for the end.",
        SHARE,
        group="Steps",
    )
    original_size: tuple[int, int] | None = argument(
        None, "(height, width) that SDXL takes the image to have had.", PAIR, group="SDXL's conditions"
    )
    crops_coords_top_left: tuple[int, int] = argument(
        (0, 0), "(top, left) of the crop that SDXL takes the image to be.", PAIR, group="SDXL's conditions"
    )
    target_size: tuple[int, int] | None = argument(
        None, "(height, width) that SDXL takes the image to have been resized to.", PAIR, group="SDXL's conditions"
    )
    negative_original_size: tuple[int, int] | None = argument(
        None, "(height, width), the same for the negative prompt.", PAIR, group="SDXL's conditions"
    )
    negative_crops_coords_top_left: tuple[int, int] = argument(
        (0, 0), "(top, left), the same for the negative prompt.", PAIR, group="SDXL's conditions"
    )
    negative_target_size: tuple[int, int] | None = argument(
        None, "(height, width), the same for the negative prompt.", PAIR, group="SDXL's conditions"
    )
    aesthetic_score: float = argument(6.0, "condition of the refiner.", NUMBER, group="SDXL's conditions")
    negative_aesthetic_score: float = argument(2.5, "condition of the refiner.", NUMBER, group="SDXL's conditions")
    loras: Sequence[Any] | None = argument(
        None,
        "LoRAs in place of the pipeline's, for this call: files, or names in its ``lora_folder``, or pairs of one and "
        "its strength. Other ones than before take time, see ``timings_ms.loras``.",
        ANYTHING,
        group="LoRA",
    )
    cross_attention_kwargs: Mapping[str, Any] | None = argument(
        None, '``{"scale": s}``: the strengths of all LoRAs are multiplied with s.', LORA_SCALE, group="LoRA"
    )
    original_inference_steps: int | None = argument(None, "LCM's teacher steps.", whole(1, STEPS_MOST), group="Steps")
    prior_num_inference_steps: int | None = argument(
        None, "steps of the prior (Kandinsky).", whole(2, STEPS_MOST), group="Prior", short=("prior-steps",)
    )
    prior_guidance_scale: float | None = argument(
        None, "guidance of the prior; 1 and below is none.", NUMBER, group="Prior", short=("prior-guidance",)
    )
    image_embeds: Any = argument(
        None,
        "float [B, D], embeddings of images in place of ``prompt`` (Kandinsky); with ``num_images_per_prompt`` n, "
        "B * n images are generated. A list of arrays is joined.",
        arrays(2),
        group="Prior",
    )
    negative_image_embeds: Any = argument(
        None,
        "float [B, D] or [1, D], what guidance leads away from; without it and ``negative_prompt``, the image "
        "encoder's embedding of zeros.",
        arrays(2),
        group="Prior",
    )
    images_and_prompts: Any = argument(
        None,
        "a list of texts and images whose embeddings are mixed (Kandinsky), by ``weights``; on a command line, the "
        "path of a file is an image.",
        MIXED,
        group="Prior",
    )
    weights: Sequence[float] | None = argument(None, "share of each of ``images_and_prompts``.", SERIES, group="Prior")
    negative_prior_prompt: str | None = argument(
        None, "what the prior leads texts of ``images_and_prompts`` away from.", TEXT, group="Prior"
    )
    prior_callback_on_step_end: Callable[..., Mapping[str, Any] | None] | None = argument(
        None,
        "as ``callback_on_step_end``, of the prior's steps; its latents are float32 [S, D, 1, 1].",
        CALLBACK,
        group="Callback",
    )
    hint: Any = argument(
        None,
        "the input of a decoder of Kandinsky's ControlNet beside the noise: an image of the generated size, "
        "such as a depth map, or one for each prompt or image.",
        IMAGE,
        group="Image to start from",
    )
    output_type: str = argument(
        "pil",
        "``pil``, ``np`` (float32 [N, H, W, 3], 0 to 1), ``latent`` (float32 [N, C, h, w]), or, of a prior, ``embeds`` "
        "(float32 [N, D]), which generates no image.",
        choice(*OUTPUT_TYPES),
        group="Output",
    )
    watermark: bool | None = argument(
        None, "SDXL's invisible watermark; None adds it where the package is installed.", FLAG, group="Output"
    )
    safety_checker: bool | None = argument(
        None,
        "whether the bundle's safety checker looks at the images and makes flagged ones black; None is as the "
        "pipeline was opened, which is yes where there is one.",
        FLAG,
        group="Output",
    )
    callback_on_step_end: Callable[..., Mapping[str, Any] | None] | None = argument(
        None,
        'called as (pipeline, i, timestep, {"latents": float32 [S, C, h, w]}) after each evaluation i of the '
        'network, as in diffusers; may return ``{"latents": ...}``, and stops the call with '
        "``pipeline._interrupt = True``.",
        CALLBACK,
        group="Callback",
    )
    callback_on_step_end_tensor_inputs: Sequence[str] = argument(
        ("latents",), "what the callback is given; ``latents`` is all there is.", ANYTHING, group="Callback"
    )

    @classmethod
    def from_settings(cls, prompt: Any = None, **settings: Any) -> "Request":
        """Build a request from keyword arguments, also from those that diffusers has and a bundle has no use for.

        Raises:
            UsageError: a name is unknown (the nearest known one is offered), or a value is out of its range.

        """
        known = {field.name for field in fields(cls)}
        for name in settings:
            if name in _REFUSED and settings[name] is not None:
                raise UsageError(f"{name}: {_REFUSED[name]}")
            if name not in known and name not in _REFUSED:
                raise UsageError(f"unknown argument {name!r}{nearest(name, known)}")
        return cls(prompt, **{name: value for name, value in settings.items() if name in known})

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                object.__setattr__(self, field.name, argument_of(field).kind.check(field.name, value))
            elif field.default is not None:
                raise UsageError(f"{field.name}=None: leave it out for its default, {field.default!r}")
        if self.output_type not in OUTPUT_TYPES:
            raise UsageError(
                f"output_type={self.output_type!r} is none of {', '.join(OUTPUT_TYPES)}"
                f"{nearest(self.output_type, OUTPUT_TYPES)}"
            )
        if self.seed is not None and self.generator is not None:
            raise UsageError("seed and generator were both given: give one of them")
        if self.num_images_per_prompt == 1 and isinstance(self.seed, (list, tuple, range)):
            each, rest = divmod(len(self.seed), max(1, self.prompts))
            if each > 1 and not rest:
                object.__setattr__(self, "num_images_per_prompt", each)
        names = self.callback_on_step_end_tensor_inputs
        if not isinstance(names, (list, tuple)) or any(name != "latents" for name in names):
            raise UsageError(
                f"callback_on_step_end_tensor_inputs={shortened(names)}: "
                "there is latents; the rest has been computed before the first step"
            )
        if self.mask_image is not None and self.image is None:
            raise UsageError("mask_image needs image, the image that it masks")

    @property
    def prompts(self) -> int:
        """How many prompts there are, as texts or embeddings."""
        for embeddings in (self.prompt_embeds, self.image_embeds):
            if self.prompt is None and embeddings is not None:
                return len(embeddings)
        return len(self.prompt) if isinstance(self.prompt, (list, tuple)) else 1
