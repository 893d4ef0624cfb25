"""Configs read off the shapes of the weights, for files that carry no ``config.json``.

What shapes do not show is a constant of the families' training code (CompVis ``latent-diffusion``, Stability
``generative-models``, ``open_clip``): 32 groups in a norm, 8 heads per level in SD 1, heads of width 64 elsewhere,
size conditions of width 256.
"""

import re
from collections.abc import Mapping

from ...engines.errors import CheckpointError
from .tensor import TensorSource

__all__ = ["controlnet_config", "text_config", "unet_config", "vae_config"]

_Tensors = Mapping[str, TensorSource]
_HEAD_WIDTH = 64
_SD1_HEADS = 8
_GROUPS = 32
_TIME_ID_WIDTH = 256


def unet_config(tensors: _Tensors, *, sample_size: int) -> dict[str, object]:
    """Return the config of a ``UNet2DConditionModel`` from its weights.

    Args:
        tensors: the weights under diffusers' names.
        sample_size: latent height and width that the family was trained on.

    Raises:
        CheckpointError: a weight that has a dimension is missing, or the shapes are no Stable Diffusion UNet's.

    """
    config = _trunk(tensors, "UNet")
    up_types = [_block_type(tensors, "Up", i) for i in range(_count(tensors, r"up_blocks\.(\d+)\."))]
    return config | {
        "_class_name": "UNet2DConditionModel",
        "out_channels": _length(tensors, "conv_out.weight", 0),
        "up_block_types": up_types,
        "sample_size": sample_size,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
    }


def controlnet_config(tensors: _Tensors) -> dict[str, object]:
    """Return the config of a ``ControlNetModel`` from its weights; see :func:`unet_config`."""
    hint = "controlnet_cond_embedding"
    halves = range(1, _count(tensors, rf"{hint}\.blocks\.(\d+)\."), 2)
    return _trunk(tensors, "ControlNet") | {
        "_class_name": "ControlNetModel",
        "conditioning_channels": _length(tensors, f"{hint}.conv_in.weight", 1),
        "conditioning_embedding_out_channels": [
            _length(tensors, f"{hint}.conv_in.weight", 0),
            *(_length(tensors, f"{hint}.blocks.{i}.weight", 0) for i in halves),
        ],
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": False,
    }


def _trunk(tensors: _Tensors, what: str) -> dict[str, object]:
    """The part of the config that UNet and ControlNet share."""
    levels = range(_count(tensors, r"down_blocks\.(\d+)\."))
    channels = [_length(tensors, f"down_blocks.{i}.resnets.0.conv1.weight", 0) for i in levels]
    layers = {_count(tensors, rf"down_blocks\.{i}\.resnets\.(\d+)\.") for i in levels}
    if len(layers) != 1:
        raise CheckpointError(f"the {what}'s levels have {sorted(layers)} residual blocks; one number was expected")
    linear = len(_shape(tensors, "mid_block.attentions.0.proj_in.weight")) == 2
    config: dict[str, object] = {
        "act_fn": "silu",
        "attention_head_dim": [_heads(width, what) for width in channels] if linear else _SD1_HEADS,
        "block_out_channels": channels,
        "cross_attention_dim": _length(tensors, f"{_MID}.attn2.to_k.weight", 1),
        "down_block_types": [_block_type(tensors, "Down", i) for i in levels],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": _length(tensors, "conv_in.weight", 1),
        "layers_per_block": layers.pop(),
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": _GROUPS,
        "transformer_layers_per_block": _depths(tensors, len(channels), what),
        "use_linear_projection": linear,
        "upcast_attention": False,
    }
    if "add_embedding.linear_1.weight" in tensors:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": _TIME_ID_WIDTH,
            "projection_class_embeddings_input_dim": _length(tensors, "add_embedding.linear_1.weight", 1),
        }
    if "time_embedding.cond_proj.weight" in tensors:
        config["time_cond_proj_dim"] = _length(tensors, "time_embedding.cond_proj.weight", 1)
    return config


_MID = "mid_block.attentions.0.transformer_blocks.0"


def _depths(tensors: _Tensors, levels: int, what: str) -> int | list[int]:
    """Transformer blocks behind a residual block, by level; one number where all levels with attention agree."""
    middle = _count(tensors, r"mid_block\.attentions\.0\.transformer_blocks\.(\d+)\.")
    depths = []
    for i in range(levels):
        attentions = range(_count(tensors, rf"down_blocks\.{i}\.attentions\.(\d+)\."))
        depths_here = {
            _count(tensors, rf"down_blocks\.{i}\.attentions\.{j}\.transformer_blocks\.(\d+)\.") for j in attentions
        }
        up = levels - 1 - i
        depths_here |= {
            _count(tensors, rf"up_blocks\.{up}\.attentions\.{j}\.transformer_blocks\.(\d+)\.")
            for j in range(_count(tensors, rf"up_blocks\.{up}\.attentions\.(\d+)\."))
        }
        if len(depths_here) > 1:
            raise CheckpointError(
                f"level {i} of the {what} has attention of different depths, {sorted(depths_here)}: shapes alone do "
                "not tell this network's config; give a folder in diffusers' layout"
            )
        depths.append(depths_here.pop() if depths_here else 0)
    if depths[-1] not in (0, middle):
        raise CheckpointError(
            f"the {what}'s middle has {middle} transformer blocks, its last level {depths[-1]}: shapes alone do not "
            "tell this network's config; give a folder in diffusers' layout"
        )
    depths[-1] = middle
    if len({depth for depth in depths if depth}) == 1:
        return middle
    return [depth or 1 for depth in depths]  # a level without attention ignores its number


def vae_config(tensors: _Tensors, *, scaling_factor: float, sample_size: int, force_upcast: bool) -> dict[str, object]:
    """Return the config of an ``AutoencoderKL`` from its weights.

    Args:
        tensors: the weights under diffusers' names.
        scaling_factor: what the family multiplies latents with.
        sample_size: height and width in pixels that the family was trained on.
        force_upcast: whether it is known to overflow in float16.

    Raises:
        CheckpointError: a weight that has a dimension is missing.

    """
    levels = range(_count(tensors, r"encoder\.down_blocks\.(\d+)\."))
    channels = [_length(tensors, f"encoder.down_blocks.{i}.resnets.0.conv1.weight", 0) for i in levels]
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D" for _ in channels],
        "force_upcast": force_upcast,
        "in_channels": _length(tensors, "encoder.conv_in.weight", 1),
        "latent_channels": _length(tensors, "decoder.conv_in.weight", 1),
        "layers_per_block": _count(tensors, r"encoder\.down_blocks\.0\.resnets\.(\d+)\."),
        "norm_num_groups": _GROUPS,
        "out_channels": _length(tensors, "decoder.conv_out.weight", 0),
        "sample_size": sample_size,
        "scaling_factor": scaling_factor,
        "up_block_types": ["UpDecoderBlock2D" for _ in channels],
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
        "use_quant_conv": "quant_conv.weight" in tensors,
    }


def text_config(tensors: _Tensors, *, hidden_act: str) -> dict[str, object]:
    """Return the config of a CLIP text encoder from its weights.

    Args:
        tensors: the weights under transformers' names.
        hidden_act: ``quick_gelu`` for OpenAI's CLIP, ``gelu`` for OpenCLIP.

    Raises:
        CheckpointError: a weight that has a dimension is missing.

    """
    vocabulary, width = _shape(tensors, "text_model.embeddings.token_embedding.weight", 2)
    projected = "text_projection.weight" in tensors
    return {
        "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
        "bos_token_id": 0,
        "eos_token_id": 2,  # the published configs' number; transformers then pools at the highest id
        "hidden_act": hidden_act,
        "hidden_size": width,
        "intermediate_size": _length(tensors, "text_model.encoder.layers.0.mlp.fc1.weight", 0),
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": _length(tensors, "text_model.embeddings.position_embedding.weight", 0),
        "model_type": "clip_text_model",
        "num_attention_heads": _heads(width, "text encoder"),
        "num_hidden_layers": _count(tensors, r"text_model\.encoder\.layers\.(\d+)\."),
        "pad_token_id": 1,
        "projection_dim": _length(tensors, "text_projection.weight", 0) if projected else width,
        "vocab_size": vocabulary,
    }


def _heads(width: int, what: str) -> int:
    if width % _HEAD_WIDTH:
        raise CheckpointError(
            f"the {what} is {width} wide, no multiple of {_HEAD_WIDTH}: a single file does not tell its number of "
            "attention heads; give the configs with it (config=, a folder in diffusers' layout)"
        )
    return width // _HEAD_WIDTH


def _block_type(tensors: _Tensors, way: str, level: int) -> str:
    prefix = f"{way.lower()}_blocks.{level}.attentions."
    return f"CrossAttn{way}Block2D" if any(name.startswith(prefix) for name in tensors) else f"{way}Block2D"


def _count(tensors: _Tensors, pattern: str) -> int:
    """How many different numbers the pattern finds at the beginning of a name."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _shape(tensors: _Tensors, name: str, ndim: int | None = None) -> tuple[int, ...]:
    if name not in tensors:
        raise CheckpointError(f"{name!r} is missing, from which the config would be read")
    shape = tensors[name].shape
    if ndim is not None and len(shape) != ndim:
        raise CheckpointError(f"{name!r} has the shape {list(shape)}, where {ndim} axes were expected")
    return shape


def _length(tensors: _Tensors, name: str, axis: int) -> int:
    shape = _shape(tensors, name)
    if axis >= len(shape):
        raise CheckpointError(f"{name!r} has the shape {list(shape)}, too few axes")
    return shape[axis]
