"""diffusers' pipeline of Kandinsky's prior: embeddings of images from texts, or mixed from texts and images."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...engines.errors import UsageError
from .callbacks import check_prior_tensors, prior_callback
from .calls import CALLS, PRIOR
from .output import EmbedsOutput
from .pipeline import DiffusionPipeline
from .text_parts import part_of
from .torch_values import tensor_of
from .translate_call import named_arguments

__all__ = ["KandinskyV22PriorPipeline"]

_RENAMED = {
    "num_inference_steps": "prior_num_inference_steps",
    "guidance_scale": "prior_guidance_scale",
    "callback_on_step_end": "prior_callback_on_step_end",
}
_OUTPUT_TYPES = ("pt", "np")


class KandinskyV22PriorPipeline(DiffusionPipeline):
    """The first stage of Kandinsky 2.2: embeddings of images. The decoder's engines are not opened for it.

    A prior is exported together with a decoder, into the bundle that the decoder's pipelines use: the one that
    ``decoder=`` names, or whose name differs as on the Hub, ``kandinsky-2-2-prior`` and ``kandinsky-2-2-decoder``.
    """

    _call = CALLS[PRIOR]
    _preload = ("text_encoder", "prior_conditioner", "prior", "prior_decoder")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Make embeddings.

        Args:
            arguments: in the order of diffusers' class of this name.
            named: the others, by diffusers' names.

        Returns:
            An :class:`.EmbedsOutput`, or a tuple of both embeddings with ``return_dict=False``.

        Raises:
            UsageError: an argument is unknown or cannot be met.
            SdengineError: the checkpoint cannot be exported, or an engine failed.

        """
        given = named_arguments(self._call, arguments, named)
        if given.get("prompt") is None:
            raise UsageError(f"{PRIOR} needs prompt")
        return_dict = given.pop("return_dict", True)
        output = self._embeds(given)
        return output if return_dict else output.to_tuple()

    def interpolate(
        self,
        images_and_prompts: Sequence[Any],
        weights: Sequence[float],
        num_images_per_prompt: int = 1,
        num_inference_steps: int = 25,
        generator: Any = None,
        latents: Any = None,
        negative_prior_prompt: str | None = None,
        negative_prompt: str = "",
        guidance_scale: float = 4.0,
        device: Any = None,
    ) -> EmbedsOutput:
        """Mix embeddings of texts and images; see diffusers' method of this name.

        Raises:
            UsageError: an argument cannot be met.

        """
        if device is not None:
            self.to(device)
        return self._embeds(
            {
                "images_and_prompts": images_and_prompts,
                "weights": weights,
                "num_images_per_prompt": num_images_per_prompt,
                "num_inference_steps": num_inference_steps,
                "generator": generator,
                "latents": latents,
                "negative_prior_prompt": negative_prior_prompt,
                "negative_prompt": negative_prompt,
                "guidance_scale": guidance_scale,
            }
        )

    def _embeds(self, given: Mapping[str, Any]) -> EmbedsOutput:
        settings = {_RENAMED.get(name, name): value for name, value in given.items() if value is not None}
        output_type = settings.pop("output_type", "pt")
        if output_type not in _OUTPUT_TYPES:
            raise UsageError(f"output_type={output_type!r} is none of {', '.join(_OUTPUT_TYPES)}")
        check_prior_tensors(settings, "callback_on_step_end_tensor_inputs")
        if "prior_callback_on_step_end" in settings:
            called = prior_callback(settings["prior_callback_on_step_end"], self)
            settings["prior_callback_on_step_end"] = called
        # diffusers reads prompts as they stand.
        result = self._result({"weighting": False, **settings, "output_type": "embeds"})
        both = (result.image_embeds, result.negative_image_embeds)
        if output_type == "pt":
            both = tuple(map(tensor_of, both))
        return EmbedsOutput(*both, result)

    @property
    def components(self) -> dict[str, Any]:
        """The parts that another pipeline of the prior can be made of."""
        return {name: part_of(self._opening, name) for name in ("text_encoder", "tokenizer")}

    @property
    def scheduler(self) -> Any:
        """Refused: a prior has the one of its checkpoint."""
        raise UsageError("scheduler: a prior has the one of its checkpoint, UnCLIPScheduler")

    @scheduler.setter
    def scheduler(self, scheduler: Any) -> None:
        raise UsageError("scheduler cannot be set: a prior has the one of its checkpoint, UnCLIPScheduler")
