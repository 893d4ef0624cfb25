"""What a caller may ask for: diffusers' names, checked, nothing filled in yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ...engines.errors import UsageError, nearest
from ..denoise.callback import checked_callback
from ..prompt.layout import LongPrompt
from .arrays import finite_array
from .scalars import finite_number, plain_numbers, shortened, whole_number

__all__ = ["IMAGES_MOST", "OUTPUT_TYPES", "STEPS_MOST", "Request"]

OUTPUT_TYPES = ("pil", "np", "latent")

_REFUSED = {
    "ip_adapter_image": "IP-Adapter is not supported yet",
    "ip_adapter_image_embeds": "IP-Adapter is not supported yet",
    "cross_attention_kwargs": "attention processors do not exist in a compiled engine",
    "callback": "it has been replaced by callback_on_step_end",
    "callback_steps": "it has been replaced by callback_on_step_end",
    "return_dict": "a call always returns a Result",
    "guess_model": "write guess_mode",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of a pipeline. None means: not given, the family's default holds (:mod:`sdengine.engines.families`).

    Numbers may be numpy's or torch's, whole ones also floats such as 30.0; they are Python's afterwards.

    The task follows from what is given: ``image`` makes it image-to-image, ``mask_image`` inpainting,
    ``control_image`` adds the bundle's ControlNets.

    Attributes:
        prompt: text, or a list of B texts; with ``num_images_per_prompt`` n, B * n images are drawn.
        prompt_2: text for the second encoder (SDXL); the same as ``prompt`` if not given.
        negative_prompt: what guidance leads away from.
        negative_prompt_2: the same for the second encoder.
        prompt_embeds: float [B, T, D] in place of ``prompt``; its siblings likewise.
        negative_prompt_embeds: float [B, T, D].
        pooled_prompt_embeds: float [B, P] (SDXL).
        negative_pooled_prompt_embeds: float [B, P] (SDXL).
        clip_skip: layers of the text encoders to skip.
        long_prompt: ``truncate`` (as diffusers, with a warning) or ``chunk``.
        weighting: whether ``(word:1.3)`` weights words.
        height: pixels.
        width: pixels.
        num_inference_steps: steps of the solver; ``timesteps`` and ``sigmas`` go before it.
        timesteps: custom timesteps, descending.
        sigmas: custom sigmas, descending.
        scheduler: class name of a diffusers scheduler, or a short name; a scheduler class of diffusers, or an object,
            whose config holds in place of the checkpoint's; the checkpoint's if None.
        scheduler_config: options on top of the checkpoint's scheduler config; or a whole config of diffusers
            (``pipe.scheduler.config``, or the path of a ``scheduler_config.json``) in place of it, whose
            ``_class_name`` decides if ``scheduler`` does not.
        eta: share of noise in DDIM and TCD.
        guidance_scale: 1 and below draws without guidance, on one row per image.
        guidance_rescale: see :class:`~sdengine.engines.nets.denoiser.Denoiser`.
        num_images_per_prompt: images of each prompt; left at 1, a list of seeds says how many there are.
        seed: an int (image i gets seed + i), or one for each image; None chooses one and reports it. An image depends
            on its own seed alone, not on those drawn beside it.
        generator: torch generators (or anything with ``initial_seed()``) in place of ``seed``: one for each image,
            or one whose stream all images share. As in diffusers, they go on where they stand, and what is drawn moves
            them on; those of CUDA give CUDA's numbers. Several images come out as in diffusers to the letter:
            inpainting over one picture takes the noise of its encoding from the first generator alone, and
            text-to-image gives negative sizes to every second row.
        rng: ``cpu`` or ``cuda``: which of torch's generators a seed means. A generator tells it itself.
        latents: float [B * n, C, h, w], the initial noise; in image-to-image, what the drawing starts from in place
            of the noised picture.
        image: pictures to start from: PIL, paths, arrays 0 to 1 [N, H, W, 3], or latents [N, C, h, w]. Files are read
            as by diffusers' ``load_image``: upright, as RGB.
        strength: how much of the schedule is drawn over ``image``, 0 to 1.
        mask_image: white is repainted; PIL, path or array 0 to 1 [N, H, W], of any size; transparency is not
            looked at.
        masked_image_latents: float [N, C, h, w], the encoded picture without the masked part.
        padding_mask_crop: draw in the region of the mask and so many pixels around it, instead of the whole picture,
            and paste the result into the picture.
        control_image: a picture per ControlNet. With several prompts, a list of pictures, one for each prompt; with
            several ControlNets too, a list for each prompt of lists for each ControlNet. Arrays may hold -1 where an
            inpainting ControlNet's picture is masked.
        controlnet_conditioning_scale: strength of each ControlNet, a number or a list.
        guess_mode: let the ControlNet work without prompt.
        control_guidance_start: share of the steps at which each ControlNet begins.
        control_guidance_end: share of the steps at which each ControlNet ends.
        denoising_start: share of the schedule another model has gone (ensemble of experts). At 0 and 1, as in
            diffusers, ``strength`` says where to begin, and the image is taken without noise.
        denoising_end: share of the schedule after which to stop and hand over; 0 and 1 stand for the end.
        original_size: (height, width) micro-condition of SDXL; its siblings likewise.
        crops_coords_top_left: (top, left).
        target_size: (height, width).
        negative_original_size: (height, width).
        negative_crops_coords_top_left: (top, left).
        negative_target_size: (height, width).
        aesthetic_score: condition of the refiner.
        negative_aesthetic_score: condition of the refiner.
        original_inference_steps: LCM's teacher steps.
        output_type: ``pil``, ``np`` (float32 [N, H, W, 3], 0 to 1) or ``latent`` (float32 [N, C, h, w]).
        watermark: SDXL's invisible watermark; None puts it in where the package is installed.
        callback_on_step_end: called as (pipeline, i, timestep, {"latents": float32 [S, C, h, w]}) after each evaluation
            i of the network, as in diffusers; may return ``{"latents": ...}``, and stops the call with
            ``pipeline._interrupt = True``.
        callback_on_step_end_tensor_inputs: what the callback is given; ``latents`` is all there is.

    """

    prompt: str | Sequence[str] | None = None
    prompt_2: str | Sequence[str] | None = None
    negative_prompt: str | Sequence[str] | None = None
    negative_prompt_2: str | Sequence[str] | None = None
    prompt_embeds: Any = None
    negative_prompt_embeds: Any = None
    pooled_prompt_embeds: Any = None
    negative_pooled_prompt_embeds: Any = None
    clip_skip: int | None = None
    long_prompt: LongPrompt = "truncate"
    weighting: bool = True
    height: int | None = None
    width: int | None = None
    num_inference_steps: int | None = None
    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    scheduler: Any = None
    scheduler_config: Mapping[str, object] | str | Path | None = None
    eta: float = 0.0
    guidance_scale: float | None = None
    guidance_rescale: float = 0.0
    num_images_per_prompt: int = 1
    seed: int | Sequence[int] | None = None
    generator: Any = None
    rng: str = "cpu"
    latents: Any = None
    image: Any = None
    strength: float | None = None
    mask_image: Any = None
    masked_image_latents: Any = None
    padding_mask_crop: int | None = None
    control_image: Any = None
    controlnet_conditioning_scale: float | Sequence[float] | None = None
    guess_mode: bool = False
    control_guidance_start: float | Sequence[float] = 0.0
    control_guidance_end: float | Sequence[float] = 1.0
    denoising_start: float | None = None
    denoising_end: float | None = None
    original_size: tuple[int, int] | None = None
    crops_coords_top_left: tuple[int, int] = (0, 0)
    target_size: tuple[int, int] | None = None
    negative_original_size: tuple[int, int] | None = None
    negative_crops_coords_top_left: tuple[int, int] = (0, 0)
    negative_target_size: tuple[int, int] | None = None
    aesthetic_score: float = 6.0
    negative_aesthetic_score: float = 2.5
    original_inference_steps: int | None = None
    output_type: str = "pil"
    watermark: bool | None = None
    callback_on_step_end: Callable[..., Mapping[str, Any] | None] | None = None
    callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Request":
        """Build a request from keyword arguments.

        Raises:
            UsageError: a name is unknown (the nearest known one is offered), or a value is out of its range.

        """
        known = {field.name for field in fields(cls)}
        for name in settings:
            if name in _REFUSED and settings[name] is not None:
                raise UsageError(f"{name}: {_REFUSED[name]}")
            if name not in known and name not in _REFUSED:
                raise UsageError(f"unknown argument {name!r}{nearest(name, known)}")
        return cls(**{name: value for name, value in settings.items() if name in known})

    def __post_init__(self) -> None:
        for name in ("output_type", "rng", "long_prompt"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name}={shortened(getattr(self, name))} must be text")
        if self.output_type not in OUTPUT_TYPES:
            raise UsageError(
                f"output_type={self.output_type!r} is none of {', '.join(OUTPUT_TYPES)}"
                f"{nearest(str(self.output_type), OUTPUT_TYPES)}"
            )
        for field in fields(self):
            if getattr(self, field.name) is None and field.default is not None:
                raise UsageError(f"{field.name}=None: leave it out for its default, {field.default!r}")
        for name, plain in (_numbers_of(self) | _others_of(self)).items():
            object.__setattr__(self, name, plain)
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
            raise UsageError("mask_image needs image, the picture that it masks")

    @property
    def prompts(self) -> int:
        """How many prompts there are, as texts or embeddings."""
        if self.prompt is None and self.prompt_embeds is not None:
            return len(self.prompt_embeds)
        return len(self.prompt) if isinstance(self.prompt, (list, tuple)) else 1


IMAGES_MOST = 4096
"""Images of one call: all of them are in memory when it ends."""
STEPS_MOST = 10_000
"""Steps of a schedule: ten times those that checkpoints were trained with."""
_PIXELS_MOST = 2**20
_WHOLE = {
    "num_images_per_prompt": (1, IMAGES_MOST),
    "num_inference_steps": (1, STEPS_MOST),
    "original_inference_steps": (1, STEPS_MOST),
    "height": (1, _PIXELS_MOST),
    "width": (1, _PIXELS_MOST),
    "padding_mask_crop": (0, _PIXELS_MOST),
    "clip_skip": (0, 100),
}
"""Whole numbers, the least and the most they may be."""
_ARRAYS = {
    "prompt_embeds": 3,
    "negative_prompt_embeds": 3,
    "pooled_prompt_embeds": 2,
    "negative_pooled_prompt_embeds": 2,
    "latents": 4,
    "masked_image_latents": 4,
}
"""Arrays, and how many axes they have."""
_FLAGS = ("weighting", "guess_mode", "watermark")
_FRACTIONS = ("strength", "denoising_start", "denoising_end", "guidance_rescale", "eta")
_NUMBERS = ("guidance_scale", "aesthetic_score", "negative_aesthetic_score")
_BY_CONTROLNET = ("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end")
"""A number, or one for each ControlNet."""
_SERIES = ("timesteps", "sigmas")
_PAIRS = (
    "original_size",
    "crops_coords_top_left",
    "target_size",
    "negative_original_size",
    "negative_crops_coords_top_left",
    "negative_target_size",
)


def _numbers_of(request: Request) -> dict[str, Any]:
    """Return a request's numbers as Python's.

    Raises:
        UsageError: a number is of the wrong kind or out of its range.

    """
    given = {name: value for name in request.__dataclass_fields__ if (value := getattr(request, name)) is not None}
    plain: dict[str, Any] = {}
    for name, value in given.items():
        if name in _WHOLE:
            least, most = _WHOLE[name]
            plain[name] = whole_number(name, value, least=least, most=most)
        elif name in _NUMBERS or name in _FRACTIONS:
            plain[name] = finite_number(name, value)
        elif name in _BY_CONTROLNET or name in _SERIES:
            plain[name] = _series(name, plain_numbers(value), single=name in _BY_CONTROLNET)
        elif name in _PAIRS:
            plain[name] = _pair(name, plain_numbers(value))
        elif name == "seed":
            plain[name] = _seeds(plain_numbers(value))
        if name in _FRACTIONS and not 0.0 <= plain[name] <= 1.0:
            raise UsageError(f"{name}={value!r} is outside 0 to 1")
    return plain


def _others_of(request: Request) -> dict[str, Any]:
    """Return a request's arrays as float32, flags as bool, and its callback as one that checks what it returns.

    Raises:
        UsageError: one of them is of the wrong kind.

    """
    plain: dict[str, Any] = {}
    for name, ndim in _ARRAYS.items():
        if (value := getattr(request, name)) is not None:
            plain[name] = finite_array(name, value, ndim=ndim)
    for name in _FLAGS:
        if (value := getattr(request, name)) is not None:
            plain[name] = plain_numbers(value)
            if not isinstance(plain[name], bool):
                raise UsageError(f"{name}={shortened(value)} must be True or False")
    if request.callback_on_step_end is not None:
        plain["callback_on_step_end"] = checked_callback(request.callback_on_step_end)
    return plain


def _series(name: str, value: Any, *, single: bool) -> float | tuple[float, ...]:
    if isinstance(value, (list, tuple, range)):
        if len(value) > STEPS_MOST:
            raise UsageError(f"{name} holds {len(value)} numbers; {STEPS_MOST} are the most")
        return tuple(finite_number(name, item) for item in value)
    if single:
        return finite_number(name, value)
    raise UsageError(f"{name}={shortened(value)} must be a list of numbers")


def _seeds(value: Any) -> Any:
    """Return seeds, whole floats as integers; their range is checked where they are used."""
    if isinstance(value, (list, tuple)):
        return [_seeds(plain_numbers(item)) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _pair(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise UsageError(f"{name}={shortened(value)} must be two numbers, vertical then horizontal")
    for item in value:
        number = finite_number(name, item)
        least = -_PIXELS_MOST if "crops" in name else 0
        if not least <= number <= _PIXELS_MOST:
            raise UsageError(f"{name}={shortened(value)} is outside {least} to {_PIXELS_MOST} pixels")
    return plain_numbers(value[0]), plain_numbers(value[1])
