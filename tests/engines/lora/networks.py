"""The networks of tiny checkpoints, as LoRAs see them, and random LoRAs for them."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from sdengine.engines.lora import Lora, merges, read_lora, strengths_of
from sdengine.engines.nets.ldm_names import ldm_modules
from sdengine.export.checkpoint import open_checkpoint

from ...bundles import checkpoint_of

__all__ = ["flat", "kohya_lora", "merged", "modules_of", "networks_of", "weights_of"]

F32 = NDArray[np.float32]
Weights = dict[str, dict[str, F32]]


@functools.cache
def weights_of(kind: str) -> Weights:
    """Return all weights that a LoRA may change, by network and name."""
    components = open_checkpoint(checkpoint_of(kind)).components
    return {
        name: {key: np.asarray(tensor.read(), np.float32) for key, tensor in part.tensors.items()}
        for name, part in components.items()
        if name == "unet" or name.startswith("text_encoder")
    }


@functools.cache
def networks_of(kind: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return their shapes."""
    return {name: {key: w.shape for key, w in weights.items()} for name, weights in weights_of(kind).items()}


def merged(kind: str, *loras: Any) -> Weights:
    """Return the weights that change with LoRAs, each a file or a pair of it and a strength."""
    networks, base = networks_of(kind), weights_of(kind)
    pairs = [lora if isinstance(lora, tuple) else (lora, 1.0) for lora in loras]
    read = [
        (lora if isinstance(lora, Lora) else read_lora(lora, networks), strengths_of(strength, networks))
        for lora, strength in pairs
    ]
    changed: Weights = {}
    for merge in merges(read):
        changed.setdefault(merge.network, {})[merge.name] = merge.applied(base[merge.network][merge.name])
    return changed


def modules_of(kind: str, network: str = "unet", *, convolutions: bool = True) -> list[str]:
    """Return the modules of a network that have a matrix or a convolution, but no embeddings."""
    return [
        name.removesuffix(".weight")
        for name, shape in networks_of(kind)[network].items()
        if len(shape) in ((2, 4) if convolutions else (2,)) and "embeddings" not in name and name.endswith(".weight")
    ]


def flat(kind: str, network: str, module: str, *, ldm: bool = False) -> str:
    """Return what kohya's scripts call a module."""
    if network == "unet":
        name = ldm_modules(modules_of(kind))[module] if ldm else module
        return "lora_unet_" + name.replace(".", "_")
    two = "text_encoder_2" in networks_of(kind)
    prefix = "lora_te" if not two else "lora_te1" if network == "text_encoder" else "lora_te2"
    return f"{prefix}_{module.replace('.', '_')}"


def kohya_lora(
    kind: str,
    file: Path,
    *,
    rank: int = 3,
    alpha: float | None = 1.5,
    ldm: bool = False,
    seed: int = 0,
    dtype: Any = np.float32,
    network_names: tuple[str, ...] | None = None,
    metadata: Mapping[str, str] | None = None,
    size: float = 0.3,
) -> Path:
    """Write a LoRA for every matrix and convolution of the networks, as kohya's scripts do."""
    random = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for network, shapes in networks_of(kind).items():
        if network_names is not None and network not in network_names:
            continue
        for module in modules_of(kind, network):
            shape = shapes[f"{module}.weight"]
            name = flat(kind, network, module, ldm=ldm and network == "unet")
            tail = (1, 1) if len(shape) == 4 else ()
            tensors[f"{name}.lora_down.weight"] = random.normal(0, size, (rank, *shape[1:])).astype(dtype)
            tensors[f"{name}.lora_up.weight"] = random.normal(0, size, (shape[0], rank, *tail)).astype(dtype)
            if alpha is not None:
                tensors[f"{name}.alpha"] = np.asarray(alpha, dtype)
    save_file(tensors, file, dict(metadata or {}))
    return file


def numpy_of(state: Mapping[str, torch.Tensor]) -> dict[str, F32]:
    """Return torch's tensors as arrays."""
    return {name: tensor.detach().float().numpy() for name, tensor in state.items()}
