"""SDXL's base and refiner in one call.

Either as an *ensemble of expert denoisers* (arXiv:2211.01324): the base runs the first part of the noise schedule and
hands its latents over, the refiner runs the rest. Or one after the other: the base runs to the end, and the refiner
takes the result as image-to-image.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..engines.errors import UsageError, nearest
from ..engines.families.sdxl import SDXL
from .generate import Progress
from .pipeline import Pipeline
from .request.request import Request
from .result import Result, Timings

__all__ = ["Ensemble"]

_BASE_ONLY = (
    "prompt_2",
    "negative_prompt_2",
    "latents",
    "image",
    "strength",
    "masked_image_latents",
    "control_image",
    "controlnet_conditioning_scale",
    "guess_mode",
    "control_guidance_start",
    "control_guidance_end",
    "target_size",
    "negative_target_size",
    "loras",
    "cross_attention_kwargs",
)
_REFINER_ONLY = ("aesthetic_score", "negative_aesthetic_score", "output_type", "watermark")
_EMBEDDINGS = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)
_SPLIT_BY_US = ("denoising_start", "denoising_end", "padding_mask_crop")


class Ensemble:
    """A base pipeline and a refiner.

    Args:
        base: an SDXL base, for text-to-image, or for inpainting with either kind of UNet.
        refiner: an SDXL refiner, or any SDXL pipeline that takes the base's latents.

    Raises:
        UsageError: the two do not share their latents.

    """

    __slots__ = ("base", "refiner")

    def __init__(self, base: Pipeline, refiner: Pipeline) -> None:
        for what, pipeline in (("base", base), ("refiner", refiner)):
            family = pipeline.bundle.family
            if family.label != SDXL.label:
                raise UsageError(f"the {what} of an ensemble is an SDXL bundle, not one of the family {family.name}")
        of_base, of_refiner = _vae_of(base), _vae_of(refiner)
        if of_base != of_refiner:
            raise UsageError(
                f"base and refiner do not share their latents: (channels, pixels per latent, scaling) are {of_base} "
                f"and {of_refiner}"
            )
        self.base = base
        self.refiner = refiner

    def __call__(
        self,
        prompt: Any = None,
        *,
        denoising_split: float | None = 0.8,
        refiner_settings: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Result:
        """Generate with the base, then with the refiner.

        Args:
            prompt: text, or a list of texts, for both.
            denoising_split: share of the noise schedule that the base runs; None runs the base to the end, and the
                refiner on its images.
            refiner_settings: arguments of the refiner alone, such as ``strength`` (without split),
                ``aesthetic_score`` or its own ``prompt``.
            settings: of both calls, see :class:`~sdengine.runtime.Request`. ``image``, ControlNets, second
                prompts and the like go to the base; arguments of the output go to the refiner.

        Returns:
            The refiner's result, with the base's warnings, times, LoRAs and engines (as ``base.denoiser``) added.

        Raises:
            UsageError: an argument is unknown or invalid.

        """
        base, refiner = self.requests({"prompt": prompt, **settings}, denoising_split, refiner_settings or {})
        return self.generate(base, refiner)

    def requests(
        self, settings: Mapping[str, Any], denoising_split: float | None, refiner_settings: Mapping[str, Any]
    ) -> tuple[Request, Request]:
        """Divide arguments between the two; the refiner's ``image`` is added when the base is done."""
        fields = Request.__dataclass_fields__
        for name in refiner_settings:
            if name not in fields:
                raise UsageError(f"unknown argument {name!r} for the refiner{nearest(name, fields)}")
        for name in _SPLIT_BY_US:
            if settings.get(name) is not None or refiner_settings.get(name) is not None:
                raise UsageError(f"{name} cannot be set for an ensemble; denoising_split divides the schedule")
        if denoising_split is not None and not 0 < denoising_split < 1:
            raise UsageError(
                f"denoising_split={denoising_split} must lie between 0 and 1, both excluded; "
                "None runs one after the other"
            )
        if denoising_split is not None and refiner_settings.get("strength") is not None:
            raise UsageError("strength of the refiner and denoising_split were both given: use one of them")
        embedded = any(settings.get(name) is not None for name in _EMBEDDINGS)
        if embedded and not {"prompt", "prompt_embeds"} & {*refiner_settings}:
            raise UsageError("the base's prompt_embeds do not fit the refiner: give it a prompt in refiner_settings")
        base = {name: value for name, value in settings.items() if name not in _REFINER_ONLY}
        left_out = (*_BASE_ONLY, *_EMBEDDINGS)
        refiner = {name: value for name, value in settings.items() if name not in left_out} | dict(refiner_settings)
        first = Request.from_settings(**{**base, "output_type": "latent", "denoising_end": denoising_split})
        # LoRAs that the prompt names are the base's.
        untagged = {} if "prompt" in refiner_settings else {"prompt": self.base.loras_of(first)[0].prompt}
        second = Request.from_settings(**{**refiner, **untagged, "denoising_start": denoising_split, "image": _TO_COME})
        return first, second

    def generate(self, base: Request, refiner: Request, progress: Progress | None = None) -> Result:
        """Generate the images of the requests of :meth:`requests`.

        Args:
            base: the base's request.
            refiner: the refiner's, whose ``image`` is not known yet.
            progress: called as for :meth:`~.pipeline.Pipeline.generate`, by each of the two in turn.

        """
        first = self.base.generate(base, progress)
        refiner = replace(refiner, image=first.latents)
        if refiner.generator is None:
            refiner = replace(refiner, seed=list(first.seeds))
        second = self.refiner.generate(refiner, progress)
        return replace(
            second,
            engines={**{f"base.{name}": engine for name, engine in first.engines.items()}, **second.engines},
            fallbacks=(*first.fallbacks, *second.fallbacks),
            auto_ms={**{f"base.{name}": took for name, took in first.auto_ms.items()}, **second.auto_ms},
            timings_ms=_sum(first.timings_ms, second.timings_ms),
            warnings=tuple(dict.fromkeys((*first.warnings, *second.warnings))),
            settings={**first.settings, "refiner": second.settings},
            checks={**first.checks, "refiner": second.checks},
            loras=(*first.loras, *second.loras),
        )


_TO_COME = "the base's images"


def _vae_of(pipeline: Pipeline) -> tuple[object, ...]:
    config = pipeline.bundle.autoencoder
    return (config.latent, config.factor, getattr(config, "scaling_factor", None))


def _sum(a: Timings, b: Timings) -> Timings:
    stages = ("load", "text", "condition", "encode", "denoise", "decode", "total", "loras")
    return Timings(**{name: getattr(a, name) + getattr(b, name) for name in stages}, steps=[*a.steps, *b.steps])
