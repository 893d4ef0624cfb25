"""The ``config.json`` of a component, as diffusers and transformers read it."""

import re
from pathlib import Path
from typing import Any

from .json_file import read_json
from .safety_checker import SAFETY_CHECKER

__all__ = ["at_least_64", "read_config"]

# transformers' CLIPTextConfig: where the config of a whole CLIP is written, values that equal these may be left out.
_CLIP_TEXT: dict[str, object] = {
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "hidden_act": "quick_gelu",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-5,
    "max_position_embeddings": 77,
    "num_attention_heads": 8,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 512,
    "vocab_size": 49408,
}
# The same of CLIPVisionConfig.
_CLIP_VISION: dict[str, object] = {
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "image_size": 224,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 12,
    "num_channels": 3,
    "num_hidden_layers": 12,
    "patch_size": 32,
}
_VERSION = re.compile(r"(\d+)\.(\d+)")
_NAMED_64 = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")


def read_config(file: Path, name: str) -> dict[str, Any]:
    """Read the config of a component.

    Args:
        file: its ``config.json``.
        name: the component. That of a text encoder may be the config of a whole CLIP, of which it is a part; that of
            a safety checker is, and its vision transformer's is returned.

    Raises:
        CheckpointError: it cannot be read.

    """
    config = read_json(file)
    if name == SAFETY_CHECKER:
        return _vision_config(config)
    inner = config.get("text_config")
    if not name.startswith("text_encoder") or not isinstance(inner, dict) or "hidden_size" in config:
        return config
    return {**_CLIP_TEXT, **inner}


def _vision_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a CLIP's vision transformer, with the width of the whole CLIP's embeddings."""
    # Before 4.31 transformers wrote what had been given beside the whole, which it takes first.
    parts = [part for part in (config.get("vision_config"), config.get("vision_config_dict")) if isinstance(part, dict)]
    inner = {name: value for part in parts for name, value in part.items() if name in _CLIP_VISION}
    return {**_CLIP_VISION, **inner, "projection_dim": config.get("projection_dim", 512)}


def at_least_64(unet: dict[str, Any], pipeline_class: str) -> int | None:
    """Return the sample size that diffusers' pipeline takes instead of a UNet's own, or None.

    Before 0.9 diffusers wrote smaller ones than the checkpoints were trained at; the pipelines of Stable Diffusion 1
    and 2 (not SDXL's, nor those with a ControlNet) read them as 64.
    """
    version = _VERSION.match(str(unet.get("_diffusers_version")))
    size = unet.get("sample_size")
    if version is None or (int(version[1]), int(version[2])) >= (0, 9) or type(size) is not int or size >= 64:
        return None
    return 64 if pipeline_class in _NAMED_64 else None
