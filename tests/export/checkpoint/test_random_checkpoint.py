import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, DiffusionPipeline
from sdengine.export.checkpoint import open_checkpoint, open_controlnet
from transformers import CLIPTokenizer

FolderOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def tool() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[3] / "benchmarks")
        yield importlib.import_module("random_checkpoint")


def _parts(folder: Path) -> dict[str, Any]:
    parts = {file.parent.name: json.loads(file.read_text()) for file in sorted(folder.glob("*/*config.json"))}
    parts = {name: config for name, config in parts.items() if not name.startswith("tokenizer")}
    index = json.loads((folder / "model_index.json").read_text())
    return parts | {"pipeline": {name: value for name, value in index.items() if not isinstance(value, list)}}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn:DeprecationWarning:diffusers")
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_diffusers_draws_with_it(tool: Any, folder_of: FolderOf, tmp_path: Path, dtype: str) -> None:
    written = tool.write_checkpoint(_parts(folder_of("sdxl")), tmp_path / "out", dtype=dtype)
    checkpoint = open_checkpoint(tmp_path / "out")
    assert checkpoint.family == "sdxl"
    assert checkpoint.pad_tokens == {"tokenizer": "<|endoftext|>", "tokenizer_2": "!"}
    tensors = [tensor for component in checkpoint.components.values() for tensor in component.tensors.values()]
    assert {tensor.dtype for tensor in tensors} == {{"fp16": "F16", "bf16": "BF16", "fp32": "F32"}[dtype]}
    assert sum(tensor.nbytes for tensor in tensors) == written
    assert all(component.file for component in checkpoint.components.values())
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a small house", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    assert np.isfinite(image).all()
    assert image.std() > 0.02


def test_weights_keep_the_size_of_activations(tool: Any, folder_of: FolderOf, tmp_path: Path) -> None:
    tool.write_checkpoint(_parts(folder_of("sd1")), tmp_path / "out", dtype="fp32")
    tensors = open_checkpoint(tmp_path / "out").components["unet"].tensors
    weight = tensors["up_blocks.1.resnets.0.conv1.weight"].read()
    assert abs(weight.std() * np.sqrt(weight[0].size) - 1) < 0.1
    assert np.unique(weight[:, 0, 0, 0]).size == weight.shape[0]
    assert (tensors["conv_norm_out.weight"].read() == 1).all()
    assert (tensors["conv_out.bias"].read() == 0).all()


def test_a_controlnet(tool: Any, folder_of: FolderOf, tmp_path: Path) -> None:
    config = json.loads((folder_of("controlnet_sdxl") / "config.json").read_text())
    tool.write_checkpoint({"controlnet": config}, tmp_path / "out")
    component = open_controlnet(tmp_path / "out")
    assert component.config == config
    net = ControlNetModel.from_pretrained(tmp_path / "out", dtype=torch.float32)
    assert set(net.state_dict()) == set(component.tensors)


def test_the_tokenizer_has_as_many_tokens_as_clips(tool: Any, tmp_path: Path) -> None:
    tool.write_tokenizer(tmp_path / "tokenizer", 49408, pad="!")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    assert len(tokenizer) == 49408
    ids = tokenizer("a cat", padding="max_length", max_length=6).input_ids
    assert ids[0] == 49406
    assert ids.count(49407) == 1
    assert ids[-1] == 0
    assert tokenizer.convert_ids_to_tokens(ids)[1] == "a</w>"


def test_command_line(tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(sys, "argv", ["random_checkpoint.py", "sdxl", str(tmp_path / "there")])
    assert tool.main() == 1
    small = {"controlnet": {"_class_name": "ControlNetModel"}}
    monkeypatch.setattr(tool, "KINDS", small | {"sdxl": {}})
    called: dict[str, Any] = {}
    monkeypatch.setattr(tool, "write_checkpoint", lambda parts, out, **options: called.update(options, out=out) or 1)
    monkeypatch.setattr(sys, "argv", ["x", "sdxl", str(tmp_path / "new"), "--dtype", "bf16", "--seed", "7"])
    assert tool.main() == 0
    assert called == {"dtype": "bf16", "seed": 7, "out": tmp_path / "new"}
