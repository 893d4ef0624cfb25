"""The fields that a body may hold: OpenAI's, those of a request, and those about how it is served.

A request's are :class:`~sdengine.runtime.request.Request`'s: there is no second list of them here.
"""

import dataclasses

from ..request.argument import ANYTHING, CALLBACK, IMAGE, IMAGES, MIXED, TEXT, argument_of
from ..request.request import Request

__all__ = ["ALL_FIELDS", "NO_EFFECT", "OPENAI", "OWN", "PICTURES", "REFUSED", "REQUEST", "TEXTS"]

_ELSEWHERE = {
    "generator": "send seed",
    "callback_on_step_end": "stream, with partial_images or progress",
    "safety_checker": "the server decides: sdengine serve --no-safety-checker switches it off",
    "output_type": "the answer holds images; output_format is png, jpeg or webp",
    **dict.fromkeys(("images_and_prompts", "weights", "negative_prior_prompt"), "send prompt, or image_embeds"),
}
"""Fields of a request that mean nothing in a body, and what does."""
_KINDS = {field.name: argument_of(field).kind for field in dataclasses.fields(Request)}
_UNSENDABLE = {
    name: "it is for programs in Python"
    for name, kind in _KINDS.items()
    if kind in (ANYTHING, CALLBACK, MIXED) and name not in ("scheduler_config", "loras")
}
"""Of kinds that hold Python's objects, or texts that could name files."""
REQUEST = {f.name: f for f in dataclasses.fields(Request) if f.name not in _ELSEWHERE | _UNSENDABLE}
"""Fields of a request that a body may hold."""
TEXTS = tuple(name for name in REQUEST if _KINDS[name] is TEXT)
PICTURES = tuple(name for name in REQUEST if _KINDS[name] in (IMAGE, IMAGES))
"""Those that are pictures."""
OPENAI = (
    "model",
    "prompt",
    "n",
    "size",
    "response_format",
    "output_format",
    "output_compression",
    "background",
    "stream",
    "partial_images",
    "mask",
)
"""OpenAI's fields that are obeyed."""
OWN = ("priority", "timeout", "progress")
"""Fields about how a request is served."""
NO_EFFECT = ("quality", "style", "moderation", "user", "safety_identifier", "input_fidelity")
"""OpenAI's fields that have no meaning here, and that clients send all the same."""
REFUSED = {
    "markup": "send mask, whose transparent pixels are repainted, or mask_image, whose white ones are",
    "svg": "images are of pixels; output_format is png, jpeg or webp",
    "complexity": "there is num_inference_steps",
    "frame_count": "images do not move",
    "frame_duration_ms": "images do not move",
    **_UNSENDABLE,
    **_ELSEWHERE,
}
ALL_FIELDS = (*dict.fromkeys((*OPENAI, *OWN, *REQUEST, *NO_EFFECT, *REFUSED)),)
"""All names that mean something, if only that they are refused."""
