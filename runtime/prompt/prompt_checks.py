"""Checks whether prompts suit the checkpoint's text encoders, and finds arguments that have no effect."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from ...engines.families import TextReading
from .encoder import TextEncoder
from .prompt_request import PromptRequest

__all__ = ["check_against_family", "unused"]


def check_against_family(encoders: Sequence[TextEncoder], request: PromptRequest, family: TextReading) -> None:
    """Check what depends on the checkpoint: second prompts, pooled embeddings, widths.

    Raises:
        UsageError: the request does not suit the checkpoint.

    """
    if encoders and len(encoders) != len(family.sources):
        raise UsageError(f"this family has {len(family.sources)} text encoders, not {len(encoders)}")
    for sign in ("", "negative_"):
        if getattr(request, f"{sign}prompt_2") is not None and "prompt_2" not in family.sources:
            raise UsageError(f"{sign}prompt_2 needs a second text encoder, which this checkpoint does not have")
        embeds, pooled = f"{sign}prompt_embeds", f"{sign}pooled_prompt_embeds"
        if getattr(request, embeds) is not None and (getattr(request, pooled) is not None) != family.pooled:
            need = "also needs" if family.pooled else "takes no"
            raise UsageError(f"this checkpoint {need} {pooled} beside {embeds}")
        if encoders:
            _check_width(embeds, getattr(request, embeds), sum(encoder.width for encoder in encoders))
            _check_width(pooled, getattr(request, pooled), encoders[-1].pooled_width)


def _check_width(name: str, value: NDArray[np.floating] | None, width: int | None) -> None:
    if value is not None and width is not None and value.shape[-1] != width:
        raise UsageError(f"{name} has a width of {value.shape[-1]}; this checkpoint's embeddings have {width}")


def unused(request: PromptRequest, *, guidance: bool, zeros: bool) -> list[str]:
    """Return warnings about arguments that are set and have no effect."""
    warnings = []
    negative = [name for name in _NEGATIVE if getattr(request, name) is not None]
    if negative and not guidance:
        warnings.append(f"{negative[0]} has no effect without guidance (guidance_scale above 1)")
    elif zeros and request.negative_prompt is None and request.negative_prompt_2 is not None:
        warnings.append("negative_prompt_2 has no effect without negative_prompt: this checkpoint then uses zeros")
    if request.clip_skip and request.prompt_embeds is not None:
        warnings.append("clip_skip has no effect on prompt_embeds")
    return warnings


_NEGATIVE = ("negative_prompt", "negative_prompt_2", "negative_prompt_embeds")
