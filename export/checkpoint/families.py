"""What a single file does not say about its family, from the published diffusers repositories.

Sources: the ``scheduler_config.json``, ``model_index.json`` and ``tokenizer_config.json`` of
``stable-diffusion-v1-5/stable-diffusion-v1-5``, ``stabilityai/stable-diffusion-2-1`` and ``-2-1-base``,
``stabilityai/stable-diffusion-xl-base-1.0`` and ``stabilityai/stable-diffusion-xl-refiner-1.0``; diffusers takes the
same ones in ``from_single_file``.
"""

from dataclasses import dataclass, replace
from typing import Any

__all__ = ["CLIP_END", "COSXL", "DDIM", "FAMILIES", "SD2_BASE", "FamilyDefaults", "StoredEncoder", "family_of"]

CLIP_END = "<|endoftext|>"

_NOISE: dict[str, object] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "trained_betas": None,
}
_PNDM: dict[str, object] = _NOISE | {
    "_class_name": "PNDMScheduler",
    "clip_sample": False,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}
_EULER: dict[str, object] = _NOISE | {
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}
DDIM: dict[str, object] = _NOISE | {
    "_class_name": "DDIMScheduler",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
}
"""The scheduler of SD 2 at 768 pixels."""
COSXL: dict[str, object] = {
    "_class_name": "EDMEulerScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "sigma_data": 1.0,
    "sigma_max": 120.0,
    "sigma_min": 0.002,
    "sigma_schedule": "exponential",
}
"""As diffusers' documentation loads ``stabilityai/cosxl``."""


@dataclass(frozen=True, kw_only=True)
class StoredEncoder:
    """A text encoder in a single file.

    Attributes:
        name: the component's.
        prefix: what the names of its tensors begin with.
        open_clip: whether it is OpenCLIP's, not CLIP's.
        penultimate: whether the layer before the last is its output, so that what follows is left out.

    """

    name: str
    prefix: str
    open_clip: bool
    penultimate: bool = False


@dataclass(frozen=True, kw_only=True)
class FamilyDefaults:
    """Defaults of one family.

    Attributes:
        sample_size: latent height and width it was trained on; the image has eight times as many pixels along each
            side.
        scaling_factor: what the latents of its VAE are multiplied with.
        force_upcast: whether its VAE overflows in float16.
        upcast_attention: whether its UNet's attention overflows in float16.
        encoders: its text encoders, as a single file has them.
        pad_tokens: what each tokenizer pads with.
        scheduler: its sampler's config.
        flags: its pipeline's.

    """

    sample_size: int
    scaling_factor: float
    force_upcast: bool
    upcast_attention: bool
    encoders: tuple[StoredEncoder, ...]
    pad_tokens: dict[str, str]
    scheduler: dict[str, object]
    flags: dict[str, object]


FAMILIES: dict[str, FamilyDefaults] = {
    "sd1": FamilyDefaults(
        sample_size=64,
        scaling_factor=0.18215,
        force_upcast=True,  # diffusers' default, which its config leaves in place
        upcast_attention=False,
        encoders=(StoredEncoder(name="text_encoder", prefix="cond_stage_model.transformer.", open_clip=False),),
        pad_tokens={"tokenizer": CLIP_END},
        scheduler=_PNDM,
        flags={"_class_name": "StableDiffusionPipeline"},
    ),
    "sd2": FamilyDefaults(
        sample_size=96,
        scaling_factor=0.18215,
        force_upcast=True,
        upcast_attention=True,
        encoders=(
            StoredEncoder(name="text_encoder", prefix="cond_stage_model.model.", open_clip=True, penultimate=True),
        ),
        pad_tokens={"tokenizer": "!"},
        scheduler=DDIM,
        flags={"_class_name": "StableDiffusionPipeline"},
    ),
    "sdxl": FamilyDefaults(
        sample_size=128,
        scaling_factor=0.13025,
        force_upcast=True,
        upcast_attention=False,
        encoders=(
            StoredEncoder(name="text_encoder", prefix="conditioner.embedders.0.transformer.", open_clip=False),
            StoredEncoder(name="text_encoder_2", prefix="conditioner.embedders.1.model.", open_clip=True),
        ),
        pad_tokens={"tokenizer": CLIP_END, "tokenizer_2": "!"},
        scheduler=_EULER,
        flags={"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True},
    ),
    "sdxl-refiner": FamilyDefaults(
        sample_size=128,
        scaling_factor=0.13025,
        force_upcast=True,
        upcast_attention=False,
        encoders=(StoredEncoder(name="text_encoder_2", prefix="conditioner.embedders.0.model.", open_clip=True),),
        pad_tokens={"tokenizer_2": "!"},
        scheduler=_EULER,
        flags={
            "_class_name": "StableDiffusionXLImg2ImgPipeline",
            "force_zeros_for_empty_prompt": False,
            "requires_aesthetics_score": True,
        },
    ),
}

SD2_BASE = replace(FAMILIES["sd2"], sample_size=64, upcast_attention=False, scheduler=_PNDM)
"""SD 2 at 512 pixels, which predicts noise; its inpainting model is of this kind."""


def family_of(unet: dict[str, Any], encoders: dict[str, dict[str, Any]]) -> str:
    """Return the family of a diffusers folder, from the configs of its UNet and its text encoders by name.

    SDXL conditions on sizes; its refiner lacks the first encoder. SD 2 has OpenCLIP's GELU where SD 1 has CLIP's
    approximation of it.
    """
    if unet.get("addition_embed_type") == "text_time":
        return "sdxl" if "text_encoder" in encoders else "sdxl-refiner"
    activation = encoders.get("text_encoder", {}).get("hidden_act", "quick_gelu")
    return "sd1" if activation == "quick_gelu" else "sd2"
