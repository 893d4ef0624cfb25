"""Whose LoRA a file is, for the message that it is not for these networks."""

import re
from collections.abc import Mapping

from ..files.stored_file import StoredFile
from .names import Networks

__all__ = ["checkpoint_in", "family_of_file", "family_of_networks"]

_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL", 1280: "the SDXL refiner"}
"""Width of the text that cross-attention reads -> family."""
_OTHERS: tuple[tuple[str, str], ...] = (
    (r"double_blocks|single_blocks|single_transformer_blocks", "FLUX"),
    (r"joint_blocks|lora_te3_", "Stable Diffusion 3"),
    (r"prior|text_image_embeds|add_embedding_image", "Kandinsky"),
    (r"motion_modules|temporal_transformer", "AnimateDiff"),
    (r"adaln_single|caption_projection", "PixArt"),
    (r"cross_attn[._]k_img|blocks[._]\d+[._](?:self|cross)_attn", "Wan, or another model of videos"),
    (r"context_refiner|noise_refiner", "Lumina or Z-Image"),
    (r"transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj", "Qwen-Image, FLUX or Stable Diffusion 3"),
)
_SAID = {
    "stable-diffusion-v1": "Stable Diffusion 1.x",
    "stable-diffusion-v2": "Stable Diffusion 2.x",
    "stable-diffusion-xl-v1-base": "SDXL",
    "stable-diffusion-xl-v1-refiner": "the SDXL refiner",
    "sd_v1": "Stable Diffusion 1.x",
    "sd_v2": "Stable Diffusion 2.x",
    "sdxl_base": "SDXL",
}
_TEXT_INPUT = re.compile(
    r".*attn2[._](?:processor[._])?to_[kv][._](?:lora_down|lora_A|lora\.down|lora_linear_layer\.down).*weight"
)
_TEXT_INPUT_OLD = re.compile(r".*attn2\.processor\.to_[kv]_lora\.down\.weight")
_CHECKPOINT = re.compile(r"(?:model\.diffusion_model|first_stage_model|cond_stage_model|conditioner\.embedders)\.")


def family_of_file(file: StoredFile) -> str | None:
    """Return which family a file seems to be for, or None."""
    said = file.metadata.get("modelspec.architecture") or file.metadata.get("ss_base_model_version") or ""
    for start, family in _SAID.items():
        if said.startswith(start):
            return family
    for name, tensor in file.tensors.items():
        for pattern, family in _OTHERS:
            if re.search(pattern, name):
                return family
        if (_TEXT_INPUT.fullmatch(name) or _TEXT_INPUT_OLD.fullmatch(name)) and len(tensor.shape) > 1:
            width = tensor.shape[1]
            return _WIDTHS.get(width, f"a model that reads text of width {width}")
    return said or None


def family_of_networks(networks: Networks) -> str:
    """Return what these networks are of."""
    width = next((s[1] for n, s in networks.get("unet", {}).items() if n.endswith("attn2.to_k.weight")), None)
    if width is None:
        return "Kandinsky"  # its attentions read text and pixels together
    return _WIDTHS.get(width, f"a model that reads text of width {width}")


def checkpoint_in(names: Mapping[str, object]) -> bool:
    """Whether keys are those of a whole checkpoint, or of one of its networks, and not of changes to one."""
    if any(_CHECKPOINT.match(name) and ".lora" not in name and ".diff" not in name for name in names):
        return True
    return {"conv_in.weight", "conv_out.weight"} <= set(names)
