"""Today's names for the weights of a diffusers or transformers file, whichever release wrote it."""

import re
from collections.abc import Mapping
from pathlib import Path

from .tensor import TensorSource

__all__ = ["is_buffer", "normalised", "text_name", "verbatim_file"]

_BUFFERS = frozenset({"attn_mask", "inv_freq", "logit_scale", "num_batches_tracked", "position_ids"})
_BESIDE_TEXT = ("vision_model.", "visual_projection.")
_TEXT = ("CLIPTextModel", "CLIPTextModelWithProjection")
_VISION = "vision_model."

# diffusers before 0.15 named the VAE's attention so; the weights were linear layers or, in LDM, 1x1 convolutions.
_OLD_ATTENTION = re.compile(r"((?:encoder|decoder)\.mid_block\.attentions\.\d+)\.(query|key|value|proj_attn)\.(\w+)")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LINEAR = re.compile(r"(encoder|decoder)\.mid_block\.attentions\.\d+\.to_\w+(\.0)?\.weight")


def is_buffer(name: str) -> bool:
    """Whether a tensor of that name is no weight: a table that the network computes, or a part of the training."""
    return name.rpartition(".")[2] in _BUFFERS


def normalised(class_name: str, tensors: Mapping[str, TensorSource]) -> dict[str, TensorSource]:
    """Rename the weights of a component to the names of :class:`~.component.CheckpointComponent`.

    Left out are buffers that hold no weight, and, of a text encoder in the file of a whole CLIP, the other
    weights of that file, as transformers leaves them out.
    """
    weights = {name: tensor for name, tensor in tensors.items() if not is_buffer(name)}
    if class_name in _TEXT:
        beside = _BESIDE_TEXT if class_name == "CLIPTextModelWithProjection" else (*_BESIDE_TEXT, "text_projection.")
        return {text_name(name): t for name, t in weights.items() if not name.startswith(beside)}
    if class_name == "AutoencoderKL":
        return {_vae_name(name): _linear(_vae_name(name), t) for name, t in weights.items()}
    if class_name == "StableDiffusionSafetyChecker":
        return {_vision_name(name): t for name, t in weights.items()}
    return weights


def _vision_name(name: str) -> str:
    """Return the name that a safety checker's weight has in published files; transformers from 5.6 on names others."""
    bare = name.startswith(_VISION) and not name.startswith(_VISION * 2)
    return f"{_VISION}{name}" if bare else name


def text_name(name: str) -> str:
    """Return the name that a text encoder's weight has in published files, whichever transformers named it."""
    bare = name.startswith(("embeddings.", "encoder.", "final_layer_norm."))
    return f"text_model.{name}" if bare else name


def _vae_name(name: str) -> str:
    old = _OLD_ATTENTION.fullmatch(name)
    return f"{old[1]}.{_NEW_ATTENTION[old[2]]}.{old[3]}" if old else name


def _linear(name: str, tensor: TensorSource) -> TensorSource:
    if len(tensor.shape) > 2 and _LINEAR.fullmatch(name) and set(tensor.shape[2:]) == {1}:
        return tensor.reshaped(tensor.shape[:2])
    return tensor


def verbatim_file(tensors: Mapping[str, TensorSource], stored: Mapping[str, TensorSource]) -> Path | None:
    """Return the ``.safetensors`` that holds exactly ``tensors`` under their names, given all it stores; or None."""
    files = {tensor.file for tensor in stored.values()}
    if len(files) != 1 or dict(tensors) != dict(stored):
        return None
    file = files.pop()
    same = all(name == tensor.name and tensor.verbatim for name, tensor in tensors.items())
    return file if same and file.suffix == ".safetensors" else None
