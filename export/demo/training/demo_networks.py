"""The configurations of the demo checkpoint's networks, and the one place that constructs them.

Everything is SDXL's architecture made small: the same block types, attention only below the first level, deeper
transformers further down, penultimate hidden states of two text encoders side by side, a pooled projection and six
size numbers beside the time step, an f8 autoencoder with four latent channels.
"""

from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from .trainable import TrainableUNet, TrainableVAE

__all__ = ["MAX_TOKENS", "SCHEDULER", "UNET", "VAE", "new_text_encoders", "new_unet", "new_vae"]

MAX_TOKENS = 77

VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [12, 24, 32, 48],
    "layers_per_block": 1,
    "act_fn": "silu",
    "norm_num_groups": 1,
    "sample_size": 128,
    "scaling_factor": 0.13025,
    "force_upcast": False,
}

UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [48, 64, 96],
    "layers_per_block": 1,
    "transformer_layers_per_block": [1, 1, 2],
    "attention_head_dim": [3, 4, 6],
    "cross_attention_dim": 112,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 256,
    "norm_num_groups": 8,
}

SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
}
"""SDXL's ``EulerDiscreteScheduler``."""

_ENCODER: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "hidden_act": "quick_gelu",
    "projection_dim": 48,
}
_ENCODER_2: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "projection_dim": 64,
}


def new_vae() -> TrainableVAE:
    """Return an untrained autoencoder."""
    return TrainableVAE(VAE)


def new_unet() -> TrainableUNet:
    """Return an untrained UNet."""
    return TrainableUNet(UNET, pooled=_ENCODER_2["projection_dim"])


def new_text_encoders(vocabulary: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return the two untrained text encoders for a tokenizer of so many entries.

    Their embeddings start larger than CLIP's: with few layers and little time, the words have to stand out at once.
    """
    ends = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
    shared = {"vocab_size": vocabulary, "max_position_embeddings": MAX_TOKENS, **ends}
    first = CLIPTextModel(CLIPTextConfig(**_ENCODER, **shared))
    second = CLIPTextModelWithProjection(CLIPTextConfig(**_ENCODER_2, **{**shared, "pad_token_id": 0}))
    for name, parameter in (*first.named_parameters(), *second.named_parameters()):
        if name.endswith("token_embedding.weight"):
            torch.nn.init.normal_(parameter, std=0.5)
        elif name.endswith("position_embedding.weight"):
            torch.nn.init.normal_(parameter, std=0.2)
    return first, second
