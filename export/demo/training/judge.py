"""Judges the demo checkpoint as it lies on disk: ``python -m sdengine.export.demo.training.judge [CHECKPOINT]``."""

import argparse
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from ....engines.errors import CheckpointError
from ...checkpoint.weight_names import text_name
from .demo_networks import new_vae
from .evaluate import evaluate, table
from .painter import Painter, drawer
from .write_checkpoint import CHECKPOINT

__all__ = ["main", "read_checkpoint"]

_FILES = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
    "text_encoder_2": "text_encoder_2/model.safetensors",
}


def read_checkpoint(folder: Path) -> tuple[Painter, Any, tuple[Any, Any]]:
    """Return painter, autoencoder and tokenizers of a folder that training wrote, computing in float32.

    Raises:
        CheckpointError: a file is missing.

    """
    for name in (*_FILES.values(), "vae/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json"):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} holds no {name}: not a checkpoint written by sdengine.export.demo.training.train"
            )
    tokenizers = tuple(CLIPTokenizer.from_pretrained(folder / name) for name in ("tokenizer", "tokenizer_2"))
    painter, vae = Painter(len(tokenizers[0])), new_vae()
    for name, file in _FILES.items():
        network = painter.get_submodule(name)
        own = {text_name(parameter): parameter for parameter in network.state_dict()}
        network.load_state_dict({own.get(stored, stored): value for stored, value in _weights(folder / file).items()})
    vae.load_state_dict(_weights(folder / "vae" / "diffusion_pytorch_model.safetensors"))
    return painter.eval(), vae.eval(), (tokenizers[0], tokenizers[1])


def _weights(file: Path) -> dict[str, torch.Tensor]:
    return {name: value.float() for name, value in load_file(file).items()}


def main() -> None:
    """Print the figures of a checkpoint as a table."""
    parser = argparse.ArgumentParser(prog="python -m sdengine.export.demo.training.judge", description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=CHECKPOINT)
    parser.add_argument("--count", type=int, default=200, help="fresh prompts, each drawn four times")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=5.0)
    options = parser.parse_args()
    draw = drawer(*read_checkpoint(options.checkpoint), steps=options.steps, guidance=options.guidance)
    print(table(evaluate(draw, count=options.count)))


if __name__ == "__main__":
    main()
