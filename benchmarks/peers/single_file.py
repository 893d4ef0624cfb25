"""Writes a checkpoint as one file under the original names, which stable-diffusion.cpp reads.

Its reader of diffusers' folders takes SDXL for SD 1.
"""

import json
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from worker import work

sys.path.append(str(Path(__file__).parents[2]))
from tests.ldm_layout import single_file


def export_single_file(job: dict[str, Any], folder: Path) -> None:
    parts = {}
    for config in Path(job["checkpoint"]).glob("*/config.json"):
        weights = load_file(next(config.parent.glob("*.safetensors")))
        parts[config.parent.name] = (weights, json.loads(config.read_text(encoding="utf-8")))
    tensors = single_file("sdxl" if job["xl"] else "sd1", parts)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


work(lambda job: lambda: None, export_single_file)
