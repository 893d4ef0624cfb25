"""Kandinsky 2.2: a prior makes the embedding of an image from text, and a decoder generates the image from it."""

from dataclasses import replace

from .family import Defaults, Family, Stage, TextReading

__all__ = ["KANDINSKY22"]

_TEXT = Defaults(guidance_scale=4.0, num_inference_steps=100)
_IMAGE = replace(_TEXT, strength=0.3)
_INPAINT = replace(_TEXT, strength=1.0)

KANDINSKY22 = Family(
    name="kandinsky22",
    label="Kandinsky 2.2",
    text_encoders=("text_encoder",),
    text=TextReading(
        sources=("prompt",), skipped_layers=0, pooled=True, final_norm=True, embeddings=False, chunks=False
    ),
    autoencoder="movq",
    image_encoder="image_encoder",
    stages=(Stage(network="prior", scheduler="prior_scheduler.json", guidance_scale=4.0, num_inference_steps=25),),
    conditions=("image_embedding", "inpainting", "hint"),
    defaults={
        ("text", False): _TEXT,
        ("image", False): _IMAGE,
        ("inpaint", False): _INPAINT,
        ("text", True): _TEXT,
        ("image", True): _IMAGE,
        ("inpaint", True): _INPAINT,
    },
    own_arguments=(
        "prior_num_inference_steps",
        "prior_guidance_scale",
        "image_embeds",
        "negative_image_embeds",
        "hint",
        "images_and_prompts",
        "weights",
        "negative_prior_prompt",
        "prior_callback_on_step_end",
    ),
    resample="bicubic",
    sizes="rounded",
    dilates_mask=True,
    strength_of_inpainting=False,
)
