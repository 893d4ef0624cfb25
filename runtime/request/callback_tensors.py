"""The tensors that callbacks may be given, by diffusers' names."""

from collections.abc import Sequence

from ...engines.errors import UsageError, nearest
from ...engines.scalars import shortened

__all__ = ["NEGATIVE", "TEXT", "checked_names"]

TEXT = {"prompt_embeds": "hidden", "add_text_embeds": "pooled", "add_time_ids": "time_ids"}
"""Those that can be changed, and the conditioner's inputs that they are: with guidance, negative prompts first."""

NEGATIVE = {
    "negative_prompt_embeds": "prompt_embeds",
    "negative_pooled_prompt_embeds": "add_text_embeds",
    "negative_add_time_ids": "add_time_ids",
    "add_neg_time_ids": "add_time_ids",
}
"""Those of negative prompts alone, and the ones that they are a part of: changing them has no effect in diffusers."""

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
        UsageError: they are no list of names, or one of them cannot be had.

    """
    argument = "callback_on_step_end_tensor_inputs"
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{argument}={shortened(names)}: a list of names is needed, such as ['latents']")
    known = ("latents", *TEXT, *NEGATIVE)
    for name in names:
        if name in _REFUSED:
            raise UsageError(f"{argument}: {name} cannot be had: {_REFUSED[name]}; there are {', '.join(known)}")
        if name not in known:
            raise UsageError(f"{argument}: there is no {name!r}, only {', '.join(known)}{nearest(name, known)}")
    return list(dict.fromkeys(names))
