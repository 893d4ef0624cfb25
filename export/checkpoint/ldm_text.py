"""Weights of text encoders inside a single file: OpenCLIP's names and layout to transformers'.

The CLIP of SD 1 and SDXL's first encoder already carry transformers' names there.
"""

import re
from collections.abc import Mapping

from ...engines.errors import CheckpointError
from .tensor import TensorSource
from .weight_names import is_buffer

__all__ = ["SD2_LAYERS", "open_clip_tensors"]

SD2_LAYERS = 23
"""SD 2 conditions on the last but one of ViT-H's 24 layers; diffusers' text encoder ends there."""

_PLAIN = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)[._](weight|bias)")


def open_clip_tensors(stored: Mapping[str, TensorSource], *, penultimate: bool) -> dict[str, TensorSource]:
    """Rename OpenCLIP's weights, split the joint projections and turn the text projection round.

    Args:
        stored: the tensors of the encoder without their prefix.
        penultimate: leave out the last layer and the text projection, which SD 2 does not use.

    Raises:
        CheckpointError: a tensor is none of a text encoder's.

    """
    tensors: dict[str, TensorSource] = {}
    for name, tensor in stored.items():
        layer = _LAYER.fullmatch(name)
        if is_buffer(name):
            continue
        if name in _PLAIN:
            tensors[_PLAIN[name]] = tensor
        elif name == "text_projection":
            if not penultimate:
                tensors["text_projection.weight"] = _matrix(tensor).transposed()
        elif layer and penultimate and int(layer[1]) >= SD2_LAYERS:
            continue
        elif layer and layer[2] == "attn.in_proj":
            tensors |= _split(f"text_model.encoder.layers.{layer[1]}.self_attn", layer[3], tensor)
        elif layer and layer[2] in _PARTS:
            tensors[f"text_model.encoder.layers.{layer[1]}.{_PARTS[layer[2]]}.{layer[3]}"] = tensor
        else:
            raise CheckpointError(f"{tensor.name!r} of {tensor.file} is no weight of an OpenCLIP text encoder")
    return tensors


def _matrix(tensor: TensorSource) -> TensorSource:
    if len(tensor.shape) != 2:
        raise CheckpointError(f"{tensor.name!r} of {tensor.file} has the shape {list(tensor.shape)}, not a matrix's")
    return tensor


def _split(prefix: str, kind: str, joint: TensorSource) -> dict[str, TensorSource]:
    """Queries, keys and values stand below each other in one weight."""
    if not joint.shape or joint.shape[0] % 3 or not joint.verbatim:
        raise CheckpointError(f"{joint.name!r} of {joint.file}, shape {list(joint.shape)}, is no joint projection")
    width = joint.shape[0] // 3
    return {f"{prefix}.{letter}_proj.{kind}": joint.rows(i * width, (i + 1) * width) for i, letter in enumerate("qkv")}
