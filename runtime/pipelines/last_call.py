"""Attributes of diffusers' pipelines that are arguments of the call under way, or of the last one."""

from collections.abc import Mapping
from typing import Any

from ...engines.errors import UsageError
from .opening import Opening

__all__ = ["LastCall"]


class LastCall:
    """Attributes that callbacks read during a call, and programs after it."""

    _opening: Opening
    _asked: Mapping[str, Any]
    _evaluations: int | None

    @property
    def guidance_scale(self) -> Any:
        """Strength of guidance, as a callback has left it."""
        value = self._asked.get("guidance_scale")
        return self._usual_guidance_scale() if value is None else value

    def _usual_guidance_scale(self) -> float:
        raise NotImplementedError

    @property
    def _guidance_scale(self) -> Any:
        return self.guidance_scale

    @_guidance_scale.setter
    def _guidance_scale(self, scale: float) -> None:
        running = self._opening.running
        if running is None:
            raise UsageError("_guidance_scale is set in callbacks; guidance_scale is an argument of the call")
        running._guidance_scale = scale
        self._asked = {**self._asked, "guidance_scale": scale}

    @property
    def guidance_rescale(self) -> Any:
        """Share of the prediction that is rescaled."""
        return self._asked.get("guidance_rescale", 0.0)

    @property
    def clip_skip(self) -> Any:
        """Layers of the text encoders that are skipped."""
        return self._asked.get("clip_skip")

    @property
    def denoising_start(self) -> Any:
        """Share of the schedule that another model has run."""
        return self._asked.get("denoising_start")

    @property
    def denoising_end(self) -> Any:
        """Share of the schedule after which denoising stops."""
        return self._asked.get("denoising_end")

    @property
    def cross_attention_kwargs(self) -> Any:
        """Options of attention: ``scale``, the strength of LoRAs."""
        return self._asked.get("cross_attention_kwargs")

    @property
    def lora_scale(self) -> float:
        """What the strengths of LoRAs are multiplied with."""
        return float((self.cross_attention_kwargs or {}).get("scale", 1.0))

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the images are denoised with guidance."""
        return bool(self.guidance_scale > 1)

    @property
    def num_timesteps(self) -> int | None:
        """Evaluations of the network; None before the first call."""
        return self._evaluations

    @property
    def interrupt(self) -> bool:
        """Whether the call under way has been asked to stop."""
        return self._opening.pipeline().interrupt

    @property
    def _interrupt(self) -> bool:
        return self.interrupt

    @_interrupt.setter
    def _interrupt(self, stop: bool) -> None:
        self._opening.pipeline()._interrupt = stop
