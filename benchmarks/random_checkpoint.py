"""Write a checkpoint of a published configuration with random weights, in diffusers' layout.

    python benchmarks/random_checkpoint.py sdxl /tmp/sdxl --dtype fp16

Weights are streamed: no more than one tensor is in memory. Each is drawn so that activations keep their size (normal,
standard deviation one over the square root of the inputs; norms one, biases zero), so that a step stays finite.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from published_configs import KINDS
from sdengine.export.checkpoint import CheckpointComponent, expected_shapes

__all__ = ["main", "write_checkpoint", "write_tokenizer"]

_DTYPES = {"fp16": ("F16", torch.float16), "bf16": ("BF16", torch.bfloat16), "fp32": ("F32", torch.float32)}
_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "controlnet": "diffusion_pytorch_model",
    "movq": "diffusion_pytorch_model",
    "prior": "diffusion_pytorch_model",
}
# Numbers are drawn once and cut out of this pool: a prime length keeps rows of a weight from repeating.
_POOL = 8_388_593
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def write_checkpoint(parts: Mapping[str, Mapping[str, Any]], out: Path, *, dtype: str = "fp16", seed: int = 0) -> int:
    """Write all parts and return the number of bytes of weights.

    Args:
        parts: configs by part, as in ``published_configs.KINDS``. A ControlNet alone goes straight into ``out``.
        out: the folder to write, which must not exist.
        dtype: ``fp16``, ``bf16`` or ``fp32``.
        seed: of the weights.

    """
    out.mkdir(parents=True)
    pool = torch.randn(_POOL, generator=torch.Generator().manual_seed(seed))
    index: dict[str, Any] = {"_diffusers_version": "0.30.0", **parts.get("pipeline", {})}
    written = 0
    for name, config in parts.items():
        if name == "pipeline":
            continue
        folder = out if set(parts) == {"controlnet"} else out / name
        folder.mkdir(exist_ok=True)
        class_name = config.get("_class_name") or config["architectures"][0]
        index[name] = ["transformers" if name.endswith(("encoder", "encoder_2")) else "diffusers", class_name]
        if name == "scheduler":
            _write_json(folder / "scheduler_config.json", config)
            continue
        component = CheckpointComponent(name=name, class_name=class_name, config=dict(config), tensors={}, file=None)
        shapes = expected_shapes(component)
        _write_json(folder / "config.json", config)
        written += _write_weights(folder / f"{_WEIGHTS.get(name, 'model')}.safetensors", shapes, dtype, pool)
        if name.startswith("text"):
            tokenizer = name.replace("text_encoder", "tokenizer")
            pads_with_end = config["hidden_act"] == "quick_gelu"
            write_tokenizer(out / tokenizer, config["vocab_size"], pad=_EOS if pads_with_end else "!")
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
    if "pipeline" in parts:
        _write_json(out / "model_index.json", index)
    return written


def _write_weights(file: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, pool: torch.Tensor) -> int:
    name_of_type, torch_dtype = _DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * torch_dtype.itemsize
        header[name] = {"dtype": name_of_type, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        start = 0
        for name, shape in shapes.items():
            for piece in _values(name, shape, pool, start):
                stream.write(piece.to(torch_dtype).view(torch.uint8).numpy().data)
            start = (start + math.prod(shape)) % _POOL
    return position


def _values(name: str, shape: tuple[int, ...], pool: torch.Tensor, start: int) -> Iterator[torch.Tensor]:
    """Yield the numbers of one weight in pieces, row-major, float32."""
    left = math.prod(shape)
    if len(shape) == 1:
        yield torch.full((left,), 1.0 if name.endswith("weight") else 0.0)
        return
    if name == "clip_std":  # a prior's embeddings are scaled by it
        yield torch.ones(left)
        return
    table = name.endswith(("token_embedding.weight", "position_embedding.weight"))
    scale = 0.02 if table else 1.0 / math.sqrt(math.prod(shape[1:]))
    while left:
        piece = pool[start : start + left]
        yield piece * scale
        left -= len(piece)
        start = 0


def write_tokenizer(folder: Path, size: int, *, pad: str) -> None:
    """Write a CLIP tokenizer with a vocabulary of ``size`` made-up tokens, laid out as CLIP's: the end token last."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    merges = []
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters]
    for first in words:  # grows while it is read: all two-letter words, then all three-letter ones
        for second in letters:
            for end in ("</w>", ""):
                if len(tokens) < size - 2:
                    merges.append(f"{first} {second}{end}")
                    tokens.append(f"{first}{second}{end}")
                    words += [] if end else [first + second]
    vocabulary = {token: i for i, token in enumerate([*tokens, _BOS, _EOS])}
    assert len(vocabulary) == size, f"{size} tokens need a vocabulary of at least {len(vocabulary)}"
    folder.mkdir()
    _write_json(folder / "vocab.json", vocabulary)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    special = {"bos_token": _BOS, "eos_token": _EOS, "unk_token": _EOS, "pad_token": pad}
    settings = {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True, **special}
    _write_json(folder / "tokenizer_config.json", settings)
    _write_json(folder / "special_tokens_map.json", special)


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def main() -> int:
    """Read the command line and write the checkpoint."""
    parser = argparse.ArgumentParser(description="Write a checkpoint of real size with random weights.")
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=sorted(_DTYPES), default="fp16")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.out.exists():
        print(f"{options.out} exists already", file=sys.stderr)
        return 1
    begin = time.perf_counter()
    written = write_checkpoint(KINDS[options.kind], options.out, dtype=options.dtype, seed=options.seed)
    print(f"{options.out}: {written / 1e9:.2f} GB of {options.dtype} weights in {time.perf_counter() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
