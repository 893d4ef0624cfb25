"""The configuration of a UNet that an image embedding conditions, read from diffusers' ``config.json``."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import CheckpointError
from .config import UNET_OPTIONS, UNetConfig, level_config, only, per_level, refuse_unknown

__all__ = ["image_unet_config"]

_DOWN = {"SimpleCrossAttnDownBlock2D": True, "ResnetDownsampleBlock2D": False}
_UP = {"SimpleCrossAttnUpBlock2D": True, "ResnetUpsampleBlock2D": False}
_TOKENS = 32
"""That diffusers makes of an image embedding; no config says otherwise."""

_OPTIONS = UNET_OPTIONS | {
    "addition_embed_type": ("image", "image_hint"),
    "conv_in_kernel": (3,),
    "encoder_hid_dim_type": ("image_proj",),
    "mid_block_type": ("UNetMidBlock2DSimpleCrossAttn",),
    "num_attention_heads": (None,),
    "resnet_out_scale_factor": (1, 1.0, None),
    "resnet_skip_time_act": (False, None),
    "resnet_time_scale_shift": ("scale_shift",),
    "time_cond_proj_dim": (None,),
    "transformer_layers_per_block": (1,),
}


def image_unet_config(config: Mapping[str, Any]) -> UNetConfig:
    """Resolve the contents of a ``config.json``.

    Raises:
        CheckpointError: an option has a value that this network does not implement.

    """
    refuse_unknown(config, _OPTIONS, _DOWN, _UP)
    channels: Sequence[int] = config["block_out_channels"]
    levels = len(channels)
    layers = per_level(config.get("layers_per_block", 2), levels)
    # Here it is what its name says, features of a head; and the way up reads it in the same order, as in diffusers.
    widths = per_level(config["attention_head_dim"], levels)
    out_channels = config["out_channels"]
    if out_channels % 2:
        raise CheckpointError(
            f"the UNet's out_channels={out_channels}: prediction and variance were expected in equal parts"
        )
    down = zip(channels, widths, layers, config["down_block_types"], strict=True)
    up = zip(channels[::-1], widths, layers[::-1], config["up_block_types"], strict=True)
    return UNetConfig(
        in_channels=config["in_channels"],
        out_channels=out_channels,
        down=tuple(level_config(c, _heads(c, w), 1, n, cross=_DOWN[block]) for c, w, n, block in down),
        up=tuple(level_config(c, _heads(c, w), 1, n + 1, cross=_UP[block]) for c, w, n, block in up),
        mid_depth=1,
        context=only(config["cross_attention_dim"], "cross_attention_dim"),
        groups=config.get("norm_num_groups", 32),
        eps=config.get("norm_eps", 1e-5),
        linear=False,
        upcast=False,
        flip_sin_to_cos=config.get("flip_sin_to_cos", True),
        freq_shift=config.get("freq_shift", 0),
        time_ids=0,
        time_id_width=0,
        pooled=0,
        guidance_width=None,
        image=config["encoder_hid_dim"],
        image_tokens=_TOKENS,
        image_hint=config["addition_embed_type"] == "image_hint",
    )


def _heads(channels: int, width: int) -> int:
    if channels % width:
        raise CheckpointError(f"the UNet's attention_head_dim={width} does not divide {channels} channels")
    return channels // width
