"""The configs of the published checkpoints, as their repositories on the Hugging Face Hub have them.

``stable-diffusion-v1-5/stable-diffusion-v1-5`` and ``-inpainting``, ``stabilityai/stable-diffusion-2-1``,
``stabilityai/stable-diffusion-xl-base-1.0``, ``diffusers/stable-diffusion-xl-1.0-inpainting-0.1``,
``stabilityai/stable-diffusion-xl-refiner-1.0``, ``lllyasviel/control_v11p_sd15_canny``,
``diffusers/controlnet-canny-sdxl-1.0``, and ``kandinsky-community/kandinsky-2-2-decoder`` with its prior, as copies of
them that were saved later have it. Keys at diffusers' defaults that nobody reads are left out.
"""

from typing import Any

__all__ = ["KINDS"]

_Config = dict[str, Any]

_CROSS_DOWN, _DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
_CROSS_UP, _UP = "CrossAttnUpBlock2D", "UpBlock2D"

_UNET: _Config = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "out_channels": 4,
}
_UNET_SD15 = _UNET | {
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "down_block_types": [_CROSS_DOWN, _CROSS_DOWN, _CROSS_DOWN, _DOWN],
    "up_block_types": [_UP, _CROSS_UP, _CROSS_UP, _CROSS_UP],
    "sample_size": 64,
}
_UNET_SD21 = _UNET_SD15 | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "sample_size": 96,
    "upcast_attention": True,
    "use_linear_projection": True,
}
_UNET_SDXL = _UNET | {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": [_DOWN, _CROSS_DOWN, _CROSS_DOWN],
    "up_block_types": [_CROSS_UP, _CROSS_UP, _UP],
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "upcast_attention": None,
    "use_linear_projection": True,
}
_UNET_REFINER = _UNET_SDXL | {
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [384, 768, 1536, 1536],
    "cross_attention_dim": 1280,
    "down_block_types": [_DOWN, _CROSS_DOWN, _CROSS_DOWN, _DOWN],
    "up_block_types": [_UP, _CROSS_UP, _CROSS_UP, _UP],
    "projection_class_embeddings_input_dim": 2560,
    "transformer_layers_per_block": 4,
}


def _controlnet(unet: _Config) -> _Config:
    shared = {k: v for k, v in unet.items() if k not in ("up_block_types", "out_channels", "sample_size")}
    return shared | {
        "_class_name": "ControlNetModel",
        "conditioning_embedding_out_channels": [16, 32, 96, 256],
        "controlnet_conditioning_channel_order": "rgb",
    }


_TEXT_L: _Config = {
    "architectures": ["CLIPTextModel"],
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}
_TEXT_H = _TEXT_L | {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
_TEXT_G = _TEXT_H | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}

_VAE: _Config = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
}
_VAE_SDXL = _VAE | {"force_upcast": True, "sample_size": 1024, "scaling_factor": 0.13025}

_NOISE: _Config = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
_PNDM = _NOISE | {"_class_name": "PNDMScheduler", "clip_sample": False}
_DDIM_V = _NOISE | {"_class_name": "DDIMScheduler", "clip_sample": False, "prediction_type": "v_prediction"}
_EULER = _NOISE | {
    "_class_name": "EulerDiscreteScheduler",
    "interpolation_type": "linear",
    "timestep_spacing": "leading",
    "use_karras_sigmas": False,
}

_SD15: dict[str, _Config] = {
    "pipeline": {"_class_name": "StableDiffusionPipeline"},
    "unet": _UNET_SD15,
    "vae": _VAE,
    "text_encoder": _TEXT_L,
    "scheduler": _PNDM,
}
_SDXL: dict[str, _Config] = {
    "pipeline": {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True},
    "unet": _UNET_SDXL,
    "vae": _VAE_SDXL,
    "text_encoder": _TEXT_L,
    "text_encoder_2": _TEXT_G,
    "scheduler": _EULER,
}
_REFINER: dict[str, _Config] = {
    "pipeline": {
        "_class_name": "StableDiffusionXLImg2ImgPipeline",
        "force_zeros_for_empty_prompt": False,
        "requires_aesthetics_score": True,
    },
    "unet": _UNET_REFINER,
    "vae": _VAE_SDXL,
    "text_encoder_2": _TEXT_G,
    "scheduler": _EULER,
}

_UNET_KANDINSKY: _Config = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "addition_embed_type": "image",
    "attention_head_dim": 64,
    "block_out_channels": [384, 768, 1152, 1536],
    "cross_attention_dim": 768,
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "encoder_hid_dim": 1280,
    "encoder_hid_dim_type": "image_proj",
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 3,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,
    "out_channels": 8,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 64,
}
_MOVQ: _Config = {
    "_class_name": "VQModel",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 256, 512],
    "down_block_types": [*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_type": "spatial",
    "num_vq_embeddings": 16384,
    "out_channels": 3,
    "vq_embed_dim": 4,
}
_DDPM: _Config = {
    "_class_name": "DDPMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "beta_start": 0.00085,
    "clip_sample": True,
    "clip_sample_range": 1.0,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "variance_type": "fixed_small",
}
_VISION_G: _Config = {
    "architectures": ["CLIPVisionModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1664,
    "image_size": 224,
    "intermediate_size": 8192,
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 16,
    "num_hidden_layers": 48,
    "patch_size": 14,
    "projection_dim": 1280,
}
_PRIOR: _Config = {
    "_class_name": "PriorTransformer",
    "added_emb_type": "prd",
    "additional_embeddings": 4,
    "attention_head_dim": 64,
    "embedding_dim": 1280,
    "encoder_hid_proj_type": "linear",
    "num_attention_heads": 32,
    "num_embeddings": 77,
    "num_layers": 20,
    "time_embed_act_fn": "silu",
}
_UNCLIP: _Config = {
    "_class_name": "UnCLIPScheduler",
    "clip_sample": True,
    "clip_sample_range": 10.0,
    "num_train_timesteps": 1000,
    "prediction_type": "sample",
    "variance_type": "fixed_small_log",
}

KINDS: dict[str, dict[str, _Config]] = {
    "sd15": _SD15,
    "sd15-inpaint": _SD15
    | {"pipeline": {"_class_name": "StableDiffusionInpaintPipeline"}, "unet": _UNET_SD15 | {"in_channels": 9}},
    "sd21": _SD15
    | {"unet": _UNET_SD21, "vae": _VAE | {"sample_size": 768}, "text_encoder": _TEXT_H, "scheduler": _DDIM_V},
    "sdxl": _SDXL,
    "sdxl-inpaint": _SDXL
    | {"pipeline": {"_class_name": "StableDiffusionXLInpaintPipeline"}, "unet": _UNET_SDXL | {"in_channels": 9}},
    "sdxl-refiner": _REFINER,
    "kandinsky22": {
        "pipeline": {"_class_name": "KandinskyV22Pipeline"},
        "unet": _UNET_KANDINSKY,
        "movq": _MOVQ,
        "scheduler": _DDPM,
    },
    "kandinsky22-prior": {
        "pipeline": {"_class_name": "KandinskyV22PriorPipeline"},
        "prior": _PRIOR,
        "text_encoder": _TEXT_G,
        "image_encoder": _VISION_G,
        "scheduler": _UNCLIP,
    },
    "controlnet-sd15": {"controlnet": _controlnet(_UNET_SD15)},
    "controlnet-sdxl": {"controlnet": _controlnet(_UNET_SDXL)},
}
"""By kind, the config of each part; a ControlNet is a part by itself."""
