"""Writes the trained networks as a diffusers folder of SDXL, its weights rounded to float16."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ...checkpoint.weight_names import text_name
from .demo_networks import SCHEDULER, UNET, VAE
from .painter import Painter
from .train_tokenizer import EOS, write_tokenizer

__all__ = ["CHECKPOINT", "write_checkpoint"]

CHECKPOINT = Path(__file__).parents[1] / "checkpoint"
"""Where the checkpoint that ships with the package lies."""

_WRITTEN_FOR = "0.35.0"  # the oldest diffusers whose configuration files these are

_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": _WRITTEN_FOR,
    "feature_extractor": [None, None],
    "force_zeros_for_empty_prompt": True,
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def write_checkpoint(folder: Path, painter: Painter, vae: nn.Module, merges: list[tuple[str, str]]) -> None:
    """Write every component into ``folder`` (created if need be); other files there stay as they are."""
    _write_json(folder / "model_index.json", _INDEX)
    _write_json(folder / "scheduler" / "scheduler_config.json", _configured("EulerDiscreteScheduler", SCHEDULER))
    _write_json(folder / "unet" / "config.json", _configured("UNet2DConditionModel", UNET))
    _write_json(folder / "vae" / "config.json", _configured("AutoencoderKL", VAE))
    _write_weights(folder / "unet" / "diffusion_pytorch_model.safetensors", painter.unet)
    _write_weights(folder / "vae" / "diffusion_pytorch_model.safetensors", vae)
    for name in ("text_encoder", "text_encoder_2"):
        encoder: Any = getattr(painter, name)
        _write_json(folder / name / "config.json", _encoder_config(encoder))
        _write_weights(folder / name / "model.safetensors", encoder, named=text_name)
    write_tokenizer(folder / "tokenizer", merges, pad=EOS)
    write_tokenizer(folder / "tokenizer_2", merges, pad="!")


def _configured(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"_class_name": name, "_diffusers_version": _WRITTEN_FOR, **config}


def _encoder_config(encoder: Any) -> dict[str, Any]:
    config = encoder.config
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
             "projection_dim", "vocab_size", "max_position_embeddings", "bos_token_id", "eos_token_id",
             "pad_token_id", "layer_norm_eps")  # fmt: skip
    kept = {name: getattr(config, name) for name in names}
    return {"architectures": [type(encoder).__name__], "model_type": "clip_text_model", "dtype": "float16", **kept}


def _write_weights(file: Path, network: nn.Module, named: Callable[[str], str] = str) -> None:
    """Write the parameters in float16; integer buffers (position numbers) are rebuilt by whoever loads them.

    Older releases of transformers read published names only, and draw new weights for what they do not find.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    weights = {named(name): value for name, value in network.state_dict().items() if value.is_floating_point()}
    save_file({name: value.to(torch.float16).contiguous() for name, value in weights.items()}, file, {"format": "pt"})


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
