"""What files call the modules of the networks.

Names are not taken apart: flattened ones, ``down_blocks_0_attentions_0_...``, could be read in several ways. Every
module of the networks at hand is spelled in every way that is known, and a file's name is looked up among them.

==========================  ==========================================================================================
written by                  a module ``M`` of the UNet, of the text encoder ``E``
==========================  ==========================================================================================
kohya's sd-scripts          ``lora_unet_M``, ``lora_te_E``, ``lora_te1_E``, ``lora_te2_E``, with ``_`` for each dot
LyCORIS                     the same, or ``lycoris_M``
diffusers, PEFT             ``unet.M``, ``text_encoder.E``, ``text_encoder_2.E``, ``base_model.model.M``
diffusers before PEFT       ``[unet.]...attn1.processor.to_q`` (its keys end in ``_lora.down.weight``)
ComfyUI                     ``diffusion_model.M``, ``text_encoders.clip_l.transformer.E``
OneTrainer                  kohya's, or ``lora_unet.M``, ``lora_te1.E``; or ``unet.M``, ``clip_l.E``
==========================  ==========================================================================================

``M`` is diffusers' name or LDM's (SGM's); ``E`` is with or without ``text_model.``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..nets.ldm_names import ldm_modules

__all__ = ["Networks", "Target", "component_of", "modules_of", "spellings"]

Networks = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Shapes of the weights that can be changed, by network (``unet``, ``text_encoder``, ``text_encoder_2``) and name."""

_ATTENTION = re.compile(r"(.+\.attn[12])\.(to_[qkv]|to_out)(?:\.0)?")
_SELF_ATTENTION = re.compile(r"(.+\.self_attn)\.(q|k|v|out)_proj")
_BEGINNINGS = {
    "text_encoder_2": ("lora_te2", "text_encoder_2.", "clip_g.", "text_encoders.clip_g."),
    "text_encoder": ("lora_te", "text_encoder.", "text_model.", "clip_", "text_encoders."),
}
_ANY_NETWORK = ("", "base_model.model.")


@dataclass(frozen=True)
class Target:
    """A module: its network and its name there."""

    network: str
    module: str


def modules_of(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the modules that weights belong to."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in shapes))


def spellings(networks: Networks) -> dict[str, list[Target]]:
    """Return every name that a file may have for a module; two text encoders may share one."""
    encoders = [name for name in networks if name != "unet"]
    by_name: dict[str, list[Target]] = {}
    for network, shapes in networks.items():
        modules = modules_of(shapes)
        named = _unet(modules) if network == "unet" else _encoder(network, encoders, modules)
        for name, module in named:
            targets = by_name.setdefault(name, [])
            if Target(network, module) not in targets:
                targets.append(Target(network, module))
    return by_name


def component_of(name: str) -> str:
    """Return which component a file's name for a module is of, by how it begins, where no networks are at hand."""
    for component, beginnings in _BEGINNINGS.items():
        if name.startswith(beginnings) or (component == "text_encoder" and ".self_attn." in name):
            return component
    return "unet"


def _unet(modules: Sequence[str]) -> Iterator[tuple[str, str]]:
    ldm = ldm_modules(modules)
    for module in modules:
        for name in filter(None, (module, ldm.get(module))):
            flat = name.replace(".", "_")
            yield f"lora_unet_{flat}", module
            yield f"lycoris_{flat}", module
            for prefix in (*_ANY_NETWORK, "unet.", "unet.base_model.model.", "lora_unet.", "diffusion_model."):
                yield prefix + name, module
            yield f"model.diffusion_model.{name}", module
        if attention := _ATTENTION.fullmatch(module):
            for prefix in ("", "unet."):
                yield f"{prefix}{attention[1]}.processor.{attention[2]}", module


def _encoder(network: str, encoders: Sequence[str], modules: Sequence[str]) -> Iterator[tuple[str, str]]:
    first = network == "text_encoder"
    flat_prefixes = ["lora_te1", "lora_te"] if first else ["lora_te2"]
    if len(encoders) == 1:
        flat_prefixes = [*dict.fromkeys([*flat_prefixes, "lora_te", "lycoris"])]
    clips = ("clip_l", "clip_h") if first else ("clip_g",)
    prefixes = (
        *_ANY_NETWORK,
        f"{network}.",
        f"{network}.base_model.model.",
        *(f"{prefix}." for prefix in (*flat_prefixes, *clips)),
        *(f"{before}{clip}.transformer." for clip in clips for before in ("", "text_encoders.")),
    )
    for module in modules:
        for name in dict.fromkeys((module, module.removeprefix("text_model."))):
            for prefix in flat_prefixes:
                yield f"{prefix}_{name.replace('.', '_')}", module
            for prefix in prefixes:
                yield prefix + name, module
            if attention := _SELF_ATTENTION.fullmatch(name):
                yield f"{network}.{attention[1]}.to_{attention[2]}", module
