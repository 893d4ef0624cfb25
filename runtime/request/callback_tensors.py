"""The tensors that a callback may get, by diffusers' names."""

from collections.abc import Sequence

from ...engines.errors import UsageError, nearest
from ...engines.scalars import shortened

__all__ = ["NEGATIVE", "TEXT", "checked_names"]

TEXT = {"prompt_embeds": "hidden", "add_text_embeds": "pooled", "add_time_ids": "time_ids"}
"""Tensors that a callback can change, and the conditioner's input that each is; rows of negative prompts come first."""

NEGATIVE = {
    "negative_prompt_embeds": "prompt_embeds",
    "negative_pooled_prompt_embeds": "add_text_embeds",
    "negative_add_time_ids": "add_time_ids",
    "add_neg_time_ids": "add_time_ids",
}
"""The negative prompts' rows of these tensors, and the tensor; to change them has no effect, as in diffusers."""

_INSIDE = "it has become a part of the networks' inputs before the first step"
_REFUSED = {
    "mask": _INSIDE,
    "masked_image_latents": _INSIDE,
    "image": _INSIDE,
    "control_image": _INSIDE,
    "denoised": "it is not computed apart from the latents",
    "w_embedding": _INSIDE,
}


def checked_names(names: object) -> Sequence[str]:
    """Return the names, after checking them.

    Raises:
        UsageError: they are no list of names, or a callback cannot get one of them.

    """
    argument = "callback_on_step_end_tensor_inputs"
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{argument}={shortened(names)}: a list of names is needed, such as ['latents']")
    available = ("latents", *TEXT, *NEGATIVE)
    for name in names:
        if name in _REFUSED:
            raise UsageError(f"{argument}: {name} cannot be had: {_REFUSED[name]}; there are {', '.join(available)}")
        if name not in available:
            raise UsageError(f"{argument}: there is no {name!r}, only {', '.join(available)}{nearest(name, available)}")
    return list(dict.fromkeys(names))
