"""The arguments of a call, by diffusers' names: each is checked by itself, and no default is filled in yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any

from ...engines.errors import UsageError, nearest
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
from .callback_tensors import checked_names

__all__ = ["IMAGES_MOST", "OUTPUT_TYPES", "STEPS_MOST", "Request"]

OUTPUT_TYPES = ("pil", "np", "latent", "embeds")
IMAGES_MOST = 4096
"""Most images of one call: all of them are in memory when it ends."""
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
    """The arguments of one call. None means that the family's default is used (:mod:`sdengine.engines.families`).

    Numbers may be numpy's or torch's, and whole numbers may be floats such as 30.0; they become Python's numbers.

    The task follows from the arguments that are set: ``image`` makes it image-to-image, ``mask_image`` inpainting,
    ``control_image`` adds the bundle's ControlNets.

    Each field is declared with its meaning, the values that it takes, and the way it is written on a command line
    (:mod:`~sdengine.runtime.request.argument`). The options of the command line and the fields of the server are made
    from these declarations.
    """

    prompt: str | Sequence[str] | None = argument(
        None,
        "text, or a list of B texts; with ``num_images_per_prompt`` n, B * n images are generated.",
        TEXT,
        group="Prompt",
    )
    _: KW_ONLY
    prompt_2: str | Sequence[str] | None = argument(
        None, "text for the second encoder (SDXL); None is ``prompt``.", TEXT, group="Prompt"
    )
    negative_prompt: str | Sequence[str] | None = argument(
        None, "text that guidance leads away from.", TEXT, group="Prompt"
    )
    negative_prompt_2: str | Sequence[str] | None = argument(
        None, "the same for the second encoder (SDXL).", TEXT, group="Prompt"
    )
    prompt_embeds: Any = argument(None, "float [B, T, D], embeddings in place of ``prompt``.", array(3), group="Prompt")
    negative_prompt_embeds: Any = argument(
        None, "float [B, T, D], embeddings in place of ``negative_prompt``.", array(3), group="Prompt"
    )
    pooled_prompt_embeds: Any = argument(
        None, "float [B, P], the pooled embeddings of ``prompt`` (SDXL).", array(2), group="Prompt"
    )
    negative_pooled_prompt_embeds: Any = argument(
        None, "float [B, P], the pooled embeddings of ``negative_prompt`` (SDXL).", array(2), group="Prompt"
    )
    clip_skip: int | None = argument(
        None, "number of the text encoders' last layers to skip.", whole(0, 100), group="Prompt"
    )
    long_prompt: LongPrompt = argument(
        "truncate",
        "what to do with prompts of more than 77 tokens: ``truncate``, as diffusers, with a warning; or ``chunk``, "
        "which encodes them in windows of 75 tokens.",
        choice("truncate", "chunk"),
        group="Prompt",
    )
    weighting: bool = argument(
        True, "whether ``(word:1.3)`` in a prompt weights the word, or is text.", FLAG, group="Prompt"
    )
    height: int | None = argument(None, "of the images, in pixels.", whole(1, PIXELS_MOST), group="Output")
    width: int | None = argument(None, "of the images, in pixels.", whole(1, PIXELS_MOST), group="Output")
    num_inference_steps: int | None = argument(
        None,
        "number of steps; not used beside ``timesteps`` or ``sigmas``.",
        whole(1, STEPS_MOST),
        group="Steps",
        short=("steps",),
    )
    timesteps: Sequence[float] | None = argument(None, "custom timesteps, descending.", SERIES, group="Steps")
    sigmas: Sequence[float] | None = argument(None, "custom sigmas, descending.", SERIES, group="Steps")
    scheduler: Any = argument(
        None,
        "class name of a diffusers scheduler, or a short name; or a scheduler class of diffusers; or a scheduler "
        "object, whose config replaces the checkpoint's. None is the checkpoint's scheduler.",
        SCHEDULER,
        group="Steps",
    )
    scheduler_config: Mapping[str, object] | str | Path | None = argument(
        None,
        "options that replace those of the checkpoint's scheduler config; or a complete config of diffusers "
        "(``pipe.scheduler.config``, or the path of a ``scheduler_config.json``) in place of it, whose "
        "``_class_name`` is the scheduler if ``scheduler`` is None.",
        ANYTHING,
        group="Steps",
    )
    eta: float = argument(
        0.0, "DDIM's and TCD's eta, the share of fresh noise in each step, 0 to 1.", SHARE, group="Steps"
    )
    guidance_scale: float | None = argument(
        None,
        "scale of classifier-free guidance; 1 and below is no guidance, which runs the UNet once per image.",
        NUMBER,
        group="Prompt",
        short=("guidance",),
    )
    guidance_rescale: float = argument(
        0.0,
        "how far the guided prediction's standard deviation is moved to that of the prompt's prediction "
        "(arXiv:2305.08891), 0 to 1.",
        SHARE,
        group="Prompt",
    )
    num_images_per_prompt: int = argument(
        1,
        "images for each prompt; if it is 1, a list of seeds says how many there are.",
        whole(1, IMAGES_MOST),
        group="Output",
        short=("images",),
    )
    seed: int | Sequence[int] | None = argument(
        None,
        "an int, with which image i gets seed + i; or a list with one for each image. None chooses one, which the "
        "result reports. An image depends only on its own seed, not on the other images of the call.",
        SEEDS,
        group="Seed",
    )
    generator: Any = argument(
        None,
        "torch generators (or objects with ``initial_seed()``) in place of ``seed``: one for each image, or one that "
        "all images share. As in diffusers, they continue from their state, and advance; generators on CUDA give "
        "CUDA's numbers. With several images too, the result is exactly diffusers': inpainting of one image takes the "
        "noise for encoding it from the first generator only, and text-to-image with SDXL gives every second row the "
        "size conditions of the negative prompt.",
        ANYTHING,
        group="Seed",
    )
    rng: str = argument(
        "cpu",
        "``cpu`` or ``cuda``: which of torch's generators a seed is for. A generator's own device overrides it.",
        choice("cpu", "cuda"),
        group="Seed",
    )
    latents: Any = argument(
        None,
        "float [B * n, C, h, w], the initial noise; in image-to-image, the latents to start from in place of the image "
        "with noise added. With a prior, float [B * n, D] is the prior's initial noise.",
        array(4, 2),
        group="Seed",
    )
    image: Any = argument(
        None,
        "images to start from: PIL images, paths, arrays of 0 to 1 [N, H, W, 3], or latents [N, C, h, w]. Files are "
        "read as by diffusers' ``load_image``: upright, as RGB.",
        IMAGE,
        group="Image to start from",
    )
    strength: float | None = argument(
        None, "share of the steps that are run on ``image``, 0 to 1.", SHARE, group="Image to start from"
    )
    mask_image: Any = argument(
        None,
        "white is repainted: a PIL image, path or array of 0 to 1 [N, H, W], of any size; transparency is ignored.",
        IMAGE,
        group="Image to start from",
        short=("mask",),
    )
    masked_image_latents: Any = argument(
        None,
        "float [N, C, h, w], the latents of the image with its masked part grey.",
        array(4),
        group="Image to start from",
    )
    padding_mask_crop: int | None = argument(
        None,
        "generate only the masked region and this many pixels around it, and paste the result into the image.",
        whole(0, PIXELS_MOST),
        group="Image to start from",
    )
    control_image: Any = argument(
        None,
        "one image for each ControlNet. With several prompts, a list with one image for each prompt; if there are "
        "several ControlNets too, each entry of it is a list with one image for each ControlNet. Arrays may hold -1 "
        "where an inpainting ControlNet's image is masked.",
        IMAGES,
        group="ControlNet",
    )
    controlnet_conditioning_scale: float | Sequence[float] | None = argument(
        None,
        "factor of the ControlNets' residuals: a number, or a list with one for each ControlNet.",
        BY_CONTROLNET,
        group="ControlNet",
        short=("control-scale",),
    )
    guess_mode: bool = argument(
        False,
        "let ControlNets act on the prompt's row alone, and deeper residuals more, so that no prompt is needed.",
        FLAG,
        group="ControlNet",
    )
    control_guidance_start: float | Sequence[float] = argument(
        0.0,
        "share of the steps after which each ControlNet begins, 0 to 1.",
        BY_CONTROLNET,
        group="ControlNet",
        short=("control-start",),
    )
    control_guidance_end: float | Sequence[float] = argument(
        1.0,
        "share of the steps after which each ControlNet ends, 0 to 1.",
        BY_CONTROLNET,
        group="ControlNet",
        short=("control-end",),
    )
    denoising_start: float | None = argument(
        None,
        "share of the schedule that another model has run already (ensemble of experts). With 0 and 1, as in "
        "diffusers, ``strength`` decides where to begin, and no noise is added to the image.",
        SHARE,
        group="Steps",
    )
    denoising_end: float | None = argument(
        None,
        "share of the schedule after which to stop, for another model to go on; 0 and 1 stand for the end.",
        SHARE,
        group="Steps",
    )
    original_size: tuple[int, int] | None = argument(
        None, "(height, width), SDXL's condition for the image's size before resizing.", PAIR, group="SDXL's conditions"
    )
    crops_coords_top_left: tuple[int, int] = argument(
        (0, 0), "(top, left), SDXL's condition for the corner of the crop.", PAIR, group="SDXL's conditions"
    )
    target_size: tuple[int, int] | None = argument(
        None, "(height, width), SDXL's condition for the image's size after resizing.", PAIR, group="SDXL's conditions"
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
    aesthetic_score: float = argument(6.0, "the refiner's condition for the prompt.", NUMBER, group="SDXL's conditions")
    negative_aesthetic_score: float = argument(
        2.5, "the refiner's condition for the negative prompt.", NUMBER, group="SDXL's conditions"
    )
    loras: Sequence[Any] | None = argument(
        None,
        "LoRAs for this call, in place of the pipeline's: files, or names in its ``lora_folder``, or pairs of one of "
        "these and its strength. Changing to other LoRAs takes time, see ``timings_ms.loras``.",
        ANYTHING,
        group="LoRA",
    )
    cross_attention_kwargs: Mapping[str, Any] | None = argument(
        None, '``{"scale": s}`` multiplies the strengths of all LoRAs by s.', LORA_SCALE, group="LoRA"
    )
    original_inference_steps: int | None = argument(
        None, "number of timesteps that LCM and TCD models were distilled on.", whole(1, STEPS_MOST), group="Steps"
    )
    prior_num_inference_steps: int | None = argument(
        None, "number of the prior's steps (Kandinsky).", whole(2, STEPS_MOST), group="Prior", short=("prior-steps",)
    )
    prior_guidance_scale: float | None = argument(
        None,
        "guidance scale of the prior; 1 and below is no guidance.",
        NUMBER,
        group="Prior",
        short=("prior-guidance",),
    )
    image_embeds: Any = argument(
        None,
        "float [B, D], embeddings of images in place of ``prompt`` (Kandinsky); with ``num_images_per_prompt`` n, "
        "B * n images are generated. A list of arrays is joined along the first axis.",
        arrays(2),
        group="Prior",
    )
    negative_image_embeds: Any = argument(
        None,
        "float [B, D] or [1, D], embeddings that guidance leads away from; without it and ``negative_prompt``, it is "
        "the image encoder's embedding of zeros.",
        arrays(2),
        group="Prior",
    )
    images_and_prompts: Any = argument(
        None,
        "a list of texts and images whose embeddings are added up with ``weights`` (Kandinsky); on a command line, the "
        "path of a file is an image.",
        MIXED,
        group="Prior",
    )
    weights: Sequence[float] | None = argument(
        None, "the factor of each of ``images_and_prompts``.", SERIES, group="Prior"
    )
    negative_prior_prompt: str | None = argument(
        None, "text that the prior's guidance leads the texts in ``images_and_prompts`` away from.", TEXT, group="Prior"
    )
    prior_callback_on_step_end: Callable[..., Mapping[str, Any] | None] | None = argument(
        None,
        "as ``callback_on_step_end``, after each evaluation of the prior; its latents are float32 [S, D, 1, 1].",
        CALLBACK,
        group="Callback",
    )
    hint: Any = argument(
        None,
        "the control image of Kandinsky's ControlNet decoders, such as a depth map, of the generated size; one, or one "
        "for each prompt or each image.",
        IMAGE,
        group="Image to start from",
    )
    output_type: str = argument(
        "pil",
        "``pil``, ``np`` (float32 [N, H, W, 3], 0 to 1), ``latent`` (float32 [N, C, h, w]), or, with a prior, "
        "``embeds`` (float32 [N, D]), which generates no image.",
        choice(*OUTPUT_TYPES),
        group="Output",
    )
    watermark: bool | None = argument(
        None,
        "whether to add SDXL's invisible watermark; None adds it if the package is installed.",
        FLAG,
        group="Output",
    )
    safety_checker: bool | None = argument(
        None,
        "whether the bundle's safety checker checks the images and makes flagged ones black; None is the pipeline's "
        "setting, which is yes if the bundle has one.",
        FLAG,
        group="Output",
    )
    callback_on_step_end: Callable[..., Mapping[str, Any] | None] | None = argument(
        None,
        'called as (pipeline, i, timestep, {"latents": float32 [S, C, h, w]}) after each evaluation i of the UNet, as '
        'in diffusers. It may return ``{"latents": ...}`` and its other tensors, changed. '
        "``pipeline._interrupt = True`` stops the call, and ``pipeline._guidance_scale = 0.0`` ends guidance.",
        CALLBACK,
        group="Callback",
    )
    callback_on_step_end_tensor_inputs: Sequence[str] = argument(
        ("latents",),
        "the tensors that the callback gets: ``latents``, ``prompt_embeds``, of SDXL ``add_text_embeds`` and "
        "``add_time_ids``, and those of negative prompts. With guidance, the rows of negative prompts come first.",
        ANYTHING,
        group="Callback",
    )

    @classmethod
    def from_settings(cls, prompt: Any = None, **settings: Any) -> "Request":
        """Build a request from keyword arguments; those of diffusers that are not supported may be None.

        Raises:
            UsageError: an argument is unknown or not supported, or a value is out of its range.

        """
        names = {field.name for field in fields(cls)}
        for name in settings:
            if name in _REFUSED and settings[name] is not None:
                raise UsageError(f"{name}: {_REFUSED[name]}")
            if name not in names and name not in _REFUSED:
                raise UsageError(f"unknown argument {name!r}{nearest(name, names)}")
        return cls(prompt, **{name: value for name, value in settings.items() if name in names})

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
            per_prompt, rest = divmod(len(self.seed), max(1, self.prompts))
            if per_prompt > 1 and not rest:
                object.__setattr__(self, "num_images_per_prompt", per_prompt)
        checked_names(self.callback_on_step_end_tensor_inputs)
        if self.mask_image is not None and self.image is None:
            raise UsageError("mask_image needs image, the image that it masks")

    @property
    def prompts(self) -> int:
        """The number of prompts, as texts or embeddings."""
        for embeddings in (self.prompt_embeds, self.image_embeds):
            if self.prompt is None and embeddings is not None:
                return len(embeddings)
        return len(self.prompt) if isinstance(self.prompt, (list, tuple)) else 1
