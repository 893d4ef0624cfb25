"""Stable Diffusion 1 and 2, with the latent consistency models that were distilled from them: one text encoder."""

from dataclasses import replace

from .family import Defaults, Family, TextReading

__all__ = ["SD1", "SD2"]

SD1 = Family(
    name="sd1",
    label="SD",
    text_encoders=("text_encoder",),
    text=TextReading(sources=("prompt",), skipped_layers=0, pooled=False, final_norm=True),
    defaults={
        ("text", False): Defaults(guidance_scale=7.5),
        ("image", False): Defaults(guidance_scale=7.5, strength=0.8),
        ("inpaint", False): Defaults(guidance_scale=7.5, strength=1.0),
        ("text", True): Defaults(guidance_scale=7.5),
        ("image", True): Defaults(guidance_scale=7.5, strength=0.8, controlnet_conditioning_scale=0.8),
        ("inpaint", True): Defaults(guidance_scale=7.5, strength=1.0, controlnet_conditioning_scale=0.5),
    },
    distilled_defaults={
        ("text", False): Defaults(guidance_scale=8.5, num_inference_steps=4),
        ("image", False): Defaults(guidance_scale=8.5, strength=0.8, num_inference_steps=4),
    },
    corrects_schedulers=True,
    safety_checker="safety_checker",
)

SD2 = replace(SD1, name="sd2")
