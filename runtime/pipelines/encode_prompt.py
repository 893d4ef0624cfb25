"""``pipe.encode_prompt``: embeddings as the pipeline itself makes them; part of every pipeline by name."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ...engines.errors import UsageError, nearest
from .calls import Call
from .opening import Opening
from .torch_values import tensor_of
from .translate_call import by_name

__all__ = ["EncodePrompt"]

_SD = (
    "prompt device num_images_per_prompt do_classifier_free_guidance negative_prompt prompt_embeds "
    "negative_prompt_embeds lora_scale clip_skip"
)
_SDXL = (
    "prompt prompt_2 device num_images_per_prompt do_classifier_free_guidance negative_prompt negative_prompt_2 "
    "prompt_embeds negative_prompt_embeds pooled_prompt_embeds negative_pooled_prompt_embeds lora_scale clip_skip"
)
_ARGUMENTS = {"SD": tuple(_SD.split()), "SDXL": tuple(_SDXL.split())}
"""In diffusers' order (0.42), by label."""
_OF_THE_CALL = ("device", "num_images_per_prompt", "do_classifier_free_guidance", "lora_scale")


class EncodePrompt:
    """Text to embeddings."""

    _opening: Opening
    _call: ClassVar[Call]

    def encode_prompt(self, *arguments: Any, **named: Any) -> tuple[Any, ...]:
        """Encode prompts, as diffusers' method of this name; a call takes the result as ``prompt_embeds`` and so on.

        Args:
            arguments: in diffusers' order.
            named: the others. ``device`` has no effect: embeddings are on the CPU.

        Returns:
            Embeddings and negative ones, [N, T, D]; of SDXL also pooled ones and negative pooled ones, [N, P]. N is
            ``num_images_per_prompt`` of each prompt in turn; negative ones are None without guidance. Tensors where
            torch is imported, else arrays.

        Raises:
            UsageError: an argument is unknown, or cannot be met.

        """
        prompts = self._arguments(arguments, named)
        own = {name: prompts.pop(name, None) for name in _OF_THE_CALL}
        if own["lora_scale"] not in (None, 1.0):
            raise UsageError("lora_scale: set_adapters() says how strong LoRAs are, before the prompt is encoded")
        guided = own["do_classifier_free_guidance"] is None or bool(own["do_classifier_free_guidance"])
        encoded = self._encoded(prompts, guided)
        repeats = 1 if own["num_images_per_prompt"] is None else int(own["num_images_per_prompt"])
        embeddings = [encoded.hidden, encoded.negative_hidden]
        if self._call.label == "SDXL":
            embeddings += [encoded.pooled, encoded.negative_pooled]
        return tuple(None if array is None else tensor_of(np.repeat(array, repeats, axis=0)) for array in embeddings)

    def _encoded(self, prompts: Mapping[str, Any], guided: bool) -> Any:
        from ..request.request import Request
        from ..request.resolve import prompts_of

        if prompts.get("prompt") is None and prompts.get("prompt_embeds") is None:
            raise UsageError("encode_prompt: there is no prompt: give prompt or prompt_embeds")
        request = Request.from_settings(weighting=False, **prompts)
        return self._opening.pipeline().preparer.encode(prompts_of(request), guidance=guided)

    def _arguments(self, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        known = _ARGUMENTS.get(self._call.label)
        if known is None:
            raise UsageError(f"encode_prompt: {self._call.name} encodes prompts in its prior; give them to the call")
        values = by_name("encode_prompt", known, arguments, named, known, lambda name: nearest(name, known))
        return {name: value for name, value in values.items() if value is not None}
