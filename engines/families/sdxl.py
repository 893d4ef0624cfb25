"""SDXL and its refiner: two text encoders (the refiner has one); sizes, crops and aesthetic scores as conditions."""

from dataclasses import replace

from .family import Defaults, Family, TextReading

__all__ = ["SDXL", "SDXL_REFINER"]

SDXL = Family(
    name="sdxl",
    label="SDXL",
    text_encoders=("text_encoder", "text_encoder_2"),
    text=TextReading(sources=("prompt", "prompt_2"), skipped_layers=1, pooled=True, final_norm=False),
    defaults={
        ("text", False): Defaults(guidance_scale=5.0),
        ("image", False): Defaults(guidance_scale=5.0, strength=0.3),
        ("inpaint", False): Defaults(guidance_scale=7.5, strength=0.9999),
        ("text", True): Defaults(guidance_scale=5.0),
        ("image", True): Defaults(guidance_scale=5.0, strength=0.8, controlnet_conditioning_scale=0.8),
        ("inpaint", True): Defaults(guidance_scale=5.0, strength=0.9999),
    },
    own_arguments=(
        "prompt_2",
        "negative_prompt_2",
        "denoising_start",
        "denoising_end",
        "original_size",
        "target_size",
        "crops_coords_top_left",
        "negative_original_size",
        "negative_target_size",
        "negative_crops_coords_top_left",
        "aesthetic_score",
        "negative_aesthetic_score",
    ),
    watermark=True,
    vae_overflows=True,
)

SDXL_REFINER = replace(
    SDXL,
    name="sdxl-refiner",
    text_encoders=("text_encoder_2",),
    text=replace(SDXL.text, sources=("prompt",)),
)
