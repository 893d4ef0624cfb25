"""Writing a diffusers checkpoint as one file, in the key layout of LDM (SD 1, SD 2) or SGM (SDXL).

The inverse of what the library does, written from the other side: the networks are numbered as the original training
code built them, level by level from the config. Tests hold the two against each other, and both against diffusers'.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

__all__ = ["controlnet_to_ldm", "open_clip_from_clip", "single_file", "unet_to_ldm", "vae_to_ldm", "write_single_file"]

_Weights = Mapping[str, torch.Tensor]

_STEM = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _down(config: Mapping[str, Any]) -> tuple[dict[str, str], int]:
    """Modules of the way down, and the number of input blocks."""
    modules, n = {}, 1
    levels = len(config["block_out_channels"])
    for level in range(levels):
        for layer in range(config["layers_per_block"]):
            modules[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{n}.0"
            modules[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{n}.1"
            n += 1
        if level < levels - 1:
            modules[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{n}.0.op"
            n += 1
    return modules, n


def _renamed(weights: _Weights, modules: Mapping[str, str]) -> dict[str, torch.Tensor]:
    out = {}
    for name, tensor in weights.items():
        module = max((m for m in modules if name.startswith(m + ".")), key=len)
        rest = name.removeprefix(module + ".")
        if ".resnets." in module:
            inner, _, kind = rest.partition(".")
            rest = f"{_RESNET[inner]}.{kind}"
        out[f"{modules[module]}.{rest}"] = tensor
    return out


def unet_to_ldm(weights: _Weights, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    modules = {**_STEM, **_down(config)[0]}
    n = 0
    for level, kind in enumerate(config["up_block_types"]):
        for layer in range(config["layers_per_block"] + 1):
            modules[f"up_blocks.{level}.resnets.{layer}"] = f"output_blocks.{n}.0"
            modules[f"up_blocks.{level}.attentions.{layer}"] = f"output_blocks.{n}.1"
            n += 1
        place = 2 if kind.startswith("CrossAttn") else 1
        modules[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{n - 1}.{place}.conv"
    return _renamed(weights, modules)


def controlnet_to_ldm(weights: _Weights, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    down, count = _down(config)
    modules = {**_STEM, **down, "controlnet_mid_block": "middle_block_out.0"}
    modules |= {f"controlnet_down_blocks.{i}": f"zero_convs.{i}.0" for i in range(count)}
    blocks = 2 * (len(config["conditioning_embedding_out_channels"]) - 1)
    hint = ["conv_in", *(f"blocks.{i}" for i in range(blocks)), "conv_out"]
    modules |= {f"controlnet_cond_embedding.{m}": f"input_hint_block.{2 * i}" for i, m in enumerate(hint)}
    return _renamed(weights, modules)


def vae_to_ldm(weights: _Weights, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    last = len(config["block_out_channels"]) - 1
    out = {}
    for name, tensor in weights.items():
        for level in range(last + 1):
            name = name.replace(f"encoder.down_blocks.{level}.", f"encoder.down.{level}.")
            name = name.replace(f"decoder.up_blocks.{level}.", f"decoder.up.{last - level}.")
        attention = ".attentions." in name
        for new, old in (
            (".resnets.", ".block."),
            (".mid_block.block.0.", ".mid.block_1."),
            (".mid_block.block.1.", ".mid.block_2."),
            (".mid_block.attentions.0.", ".mid.attn_1."),
            (".downsamplers.0.", ".downsample."),
            (".upsamplers.0.", ".upsample."),
            (".conv_shortcut.", ".nin_shortcut."),
            (".conv_norm_out.", ".norm_out."),
            (".group_norm.", ".norm."),
            (".to_q.", ".q."),
            (".to_k.", ".k."),
            (".to_v.", ".v."),
            (".to_out.0.", ".proj_out."),
        ):
            name = name.replace(new, old)
        # LDM's attention is made of 1x1 convolutions
        out[name] = tensor[:, :, None, None] if attention and tensor.ndim == 2 else tensor
    return out


def open_clip_from_clip(weights: _Weights) -> dict[str, torch.Tensor]:
    """Names and layout of OpenCLIP, from transformers' (with or without ``text_model.`` in front)."""
    clip = {name.removeprefix("text_model."): tensor for name, tensor in weights.items()}
    out = {
        "positional_embedding": clip.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": clip.pop("embeddings.token_embedding.weight"),
        "ln_final.weight": clip.pop("final_layer_norm.weight"),
        "ln_final.bias": clip.pop("final_layer_norm.bias"),
    }
    if "text_projection.weight" in clip:
        out["text_projection"] = clip.pop("text_projection.weight").T.contiguous()
    for i in range(1 + max(int(name.split(".")[2]) for name in clip)):
        layer, target = f"encoder.layers.{i}.", f"transformer.resblocks.{i}."
        for kind in ("weight", "bias"):
            joint = [clip.pop(f"{layer}self_attn.{letter}_proj.{kind}") for letter in "qkv"]
            out[f"{target}attn.in_proj_{kind}"] = torch.cat(joint)
            for new, old in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                out[f"{target}{old}.{kind}"] = clip.pop(f"{layer}{new}.{kind}")
    assert not clip
    return out


def single_file(family: str, parts: Mapping[str, tuple[_Weights, Mapping[str, Any]]]) -> dict[str, torch.Tensor]:
    """Put the components of one family together.

    Args:
        family: ``sd1``, ``sd2``, ``sdxl`` or ``sdxl-refiner``.
        parts: weights and config of ``unet``, ``vae``, ``text_encoder``, ``text_encoder_2``.
    """
    clip = {
        name if name.startswith("text_model.") else f"text_model.{name}": tensor
        for name, tensor in parts.get("text_encoder", ({}, {}))[0].items()
    }
    groups = {"model.diffusion_model.": unet_to_ldm(*parts["unet"]), "first_stage_model.": vae_to_ldm(*parts["vae"])}
    if family == "sd1":
        groups["cond_stage_model.transformer."] = clip
    elif family == "sd2":
        groups["cond_stage_model.model."] = open_clip_from_clip(clip)
    elif family == "sdxl":
        groups["conditioner.embedders.0.transformer."] = clip
        groups["conditioner.embedders.1.model."] = open_clip_from_clip(parts["text_encoder_2"][0])
    else:
        groups["conditioner.embedders.0.model."] = open_clip_from_clip(parts["text_encoder_2"][0])
    return {prefix + name: tensor for prefix, group in groups.items() for name, tensor in group.items()}


def write_single_file(folder: Path, file: Path, family: str) -> Path:
    """Write the checkpoint in ``folder``, of diffusers' layout, as one ``.safetensors`` or ``.ckpt``."""
    parts = {}
    for config in folder.glob("*/config.json"):
        weights = load_file(next(config.parent.glob("*.safetensors")))
        parts[config.parent.name] = (weights, json.loads(config.read_text(encoding="utf-8")))
    tensors = single_file(family, parts)
    if file.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    else:
        torch.save({"state_dict": tensors, "global_step": 1}, file)
    return file
