"""A step that everybody computes: two rows through the UNet, and the difference that guidance makes of them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["step_inputs", "unet_flops"]


def step_inputs(checkpoint: Path, size: int) -> dict[str, Any]:
    """Random inputs of a step of two rows; both are of one latent."""
    config = json.loads((checkpoint / "unet" / "config.json").read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    inputs = {
        "sample": np.repeat(random(1, 4, size // 8, size // 8), 2, 0),
        "timestep": np.full(2, 501, np.float32),
        "hidden": random(2, 77, config["cross_attention_dim"]),
    }
    if config.get("addition_embed_type") == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        inputs |= {"pooled": random(2, pooled), "time_ids": np.array([[size, size, 0, 0, size, size]] * 2, np.float32)}
    return inputs


def unet_flops(bundle: str, inputs: Mapping[str, Any]) -> float:
    """Count what two rows of the plain network take, products and convolutions."""
    import torch
    from sdengine.engines.bundle.bundle import Bundle
    from sdengine.engines.nets.component_module import network_from_config
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet: Any = network_from_config(Bundle(bundle).config("unet"), torch.float32)
        pairs = [(torch.empty(2, 77, layer.to_q.out_features),) * 2 for layer in unet.cross_attentions()]
        embedding = torch.empty(2, unet.config.embedding) if "pooled" in inputs else None
        with FlopCounterMode(display=False) as counter:
            unet(torch.empty(inputs["sample"].shape), torch.empty(2), pairs, embedding=embedding)
    return float(counter.get_total_flops())
