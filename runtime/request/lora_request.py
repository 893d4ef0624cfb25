"""The LoRAs of a request: its own list, a scale for all strengths, and tags in its prompts."""

import re
from dataclasses import replace
from typing import Any

from ...engines.errors import UsageError
from ...engines.lora import Strength
from ..lora_folder import LoraFolder
from ..lora_set import LoraSources
from .request import Request

__all__ = ["loras_of_request"]

_TAG = re.compile(r"(?<!\\)<lora:([^<>]*)>")
_TAGGED = ("prompt", "prompt_2")


def loras_of_request(request: Request, usual: LoraSources, folder: LoraFolder | None) -> tuple[Request, LoraSources]:
    """Return a request without tags, and the LoRAs that it is generated with.

    Args:
        request: the request.
        usual: the pipeline's LoRAs, for requests that name none.
        folder: the LoRAs that tags may name; without a folder, tags stay in the prompt.

    Raises:
        UsageError: a tag names a LoRA that does not exist, or prompts of one call name different ones.

    """
    named = usual if request.loras is None else LoraSources.of(request.loras, folder)
    tagged: list[tuple[Any, Strength]] = []
    if folder is not None:
        request, tagged = _without_tags(request, folder)
    scale = (request.cross_attention_kwargs or {}).get("scale", 1.0)
    return request, LoraSources((*named.sources, *tagged), scale)


def _without_tags(request: Request, folder: LoraFolder) -> tuple[Request, list[tuple[Any, Strength]]]:
    """Remove tags ``<lora:NAME:STRENGTH>``, as in AUTOMATIC1111's web UI, from the prompts, and return their LoRAs.

    The name is followed by one strength for all networks, or by two, for the text encoders and for the UNet, also
    written ``te=`` and ``unet=``. Tags in the negative prompt, and those behind a backslash, stay text.
    """
    all_tags: list[list[tuple[Any, Strength]]] = []
    changed: dict[str, Any] = {}
    for name in _TAGGED:
        value = getattr(request, name)
        texts = [value] if isinstance(value, str) else list(value or [])
        tags = [[_source(tag, folder) for tag in _TAG.findall(text)] for text in texts]
        if any(tags):
            all_tags += tags
            cleaned = [_TAG.sub("", text).strip() for text in texts]
            changed[name] = cleaned[0] if isinstance(value, str) else cleaned
    if any(sorted(tags, key=repr) != sorted(all_tags[0], key=repr) for tags in all_tags):
        raise UsageError("prompts of one call are generated with the same LoRAs: their <lora:...> tags differ")
    return replace(request, **changed) if changed else request, all_tags[0] if all_tags else []


def _source(tag: str, folder: LoraFolder) -> tuple[Any, Strength]:
    tag = tag.strip()
    name = folder.name_in(tag)
    _, *rest = tag[len(name) :].split(":")
    numbers: dict[str, float] = {}
    for position, text in enumerate(rest):
        key, sign, value = text.rpartition("=")
        key = key.strip() if sign else ("te", "unet")[position] if position < 2 else text
        if key in numbers:
            raise UsageError(f"<lora:{tag}> has two strengths for {key}")
        if key not in ("te", "unet"):
            raise UsageError(
                f"<lora:{tag}>: write <lora:NAME:STRENGTH>, or te=STRENGTH and unet=STRENGTH behind the name"
            )
        try:
            if "_" in value:  # Python reads 1_0 as 10
                raise ValueError(value)
            numbers[key] = float(value)
        except ValueError as error:
            raise UsageError(f"<lora:{tag}>: {value!r} is no number") from error
    te = numbers.get("te", 1.0)
    unet = numbers.get("unet", te)
    strength: Strength = te if te == unet else {"unet": unet, "text_encoder": te, "text_encoder_2": te}
    return folder.file(name.strip()), strength
