"""Checkpoints as they are found, through the doors of a user: the command line and ``export_bundle``."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file, save_file
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import CheckpointError
from sdengine.export import export_bundle
from sdengine.runtime import Pipeline

from ..bundles import SIZES, checkpoint_of, controlnets_of
from ..ldm_layout import write_single_file

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
QUICK: dict[str, Any] = {"num_inference_steps": 2, "height": 64, "width": 64, "output_type": "latent"}


def export(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdengine.runtime", "export", *map(str, arguments), "--sizes", SIZES]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=ENVIRONMENT)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        ("model.ckpt", b"<!DOCTYPE html><html></html>", "it is an HTML page"),
    ],
)
def test_no_weights_at_all(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    done = export(tmp_path / name, "-o", tmp_path / "bundle")
    assert done.returncode == 1
    assert message in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_weight_that_is_no_number(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    folder = Path(shutil.copytree(checkpoint_of("sd1"), tmp_path / "sd1"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    weights["mid_block.resnets.0.conv1.weight"].view(-1)[7] = value
    save_file(weights, file)
    what = "NaN" if value != value else "infinity"
    with pytest.raises(
        CheckpointError, match=rf"unet: 'mid_block\.resnets\.0\.conv1\.weight' of .* holds {what} \(1 of"
    ):
        export_bundle(folder, tmp_path / "bundle", sizes=SIZES, verify="off")
    assert [file.name for file in tmp_path.iterdir()] == ["sd1"]


def test_a_weight_that_is_no_number_in_a_single_file(tmp_path: Path) -> None:
    """It is named as the network calls it and as the file does; weights that are converted are checked as well."""
    file = write_single_file(checkpoint_of("sd1"), tmp_path / "model.safetensors", "sd1")
    weights = load_file(file)
    weights["first_stage_model.decoder.mid.attn_1.q.bias"][1] = float("nan")
    save_file(weights, file)
    done = export(file, "--config", checkpoint_of("sd1"), "-o", tmp_path / "bundle", "--precision", "fp16")
    assert done.returncode == 1
    for name in ("decoder.mid_block.attentions.0.to_q.bias", "first_stage_model.decoder.mid.attn_1.q.bias"):
        assert name in done.stderr.replace("\n", "")


def test_a_checkpoint_that_brings_a_controlnet(tmp_path: Path) -> None:
    """Its own comes first, those that are added after it."""
    folder = Path(shutil.copytree(checkpoint_of("sd1"), tmp_path / "sd1"))
    own, added = controlnets_of("sd1", 2)
    shutil.copytree(own, folder / "controlnet")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionControlNetPipeline", "controlnet": ["diffusers", "ControlNetModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    bundle = export_bundle(folder, tmp_path / "bundle", sizes=SIZES, controlnets=[added], verify="off")
    assert bundle.manifest.controlnets == ["controlnet", "controlnet_2"]
    brought = diffusers.StableDiffusionControlNetPipeline.from_pretrained(folder)
    nets = [brought.controlnet, ControlNetModel.from_pretrained(added)]
    reference = diffusers.StableDiffusionControlNetPipeline(**(brought.components | {"controlnet": nets}))
    reference.set_progress_bar_config(disable=True)
    hint = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    expected = reference("a cat", image=[hint, 1 - hint], generator=torch.Generator().manual_seed(4), **QUICK).images[0]
    with Pipeline.load(tmp_path / "bundle", engine="onnxruntime") as pipeline:
        result = pipeline("a cat", control_image=[hint, 1 - hint], seed=4, **QUICK)
    np.testing.assert_allclose(result.images[0], expected.numpy(), atol=5e-3)


def test_a_controlnet_of_another_family(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"controlnet does not fit the UNet: it has \[16, 24, 32, 40\] channels"):
        export_bundle(checkpoint_of("sdxl"), tmp_path / "bundle", controlnets=controlnets_of("sd1", 1))
    assert not list(tmp_path.iterdir())


def test_a_lightning_checkpoint_with_marks(tmp_path: Path) -> None:
    """A ``.ckpt`` with numpy scalars and a table that ends in zero, exported and drawn."""
    file = write_single_file(checkpoint_of("sd1"), tmp_path / "model.ckpt", "sd1")
    content = torch.load(file)
    content["state_dict"]["alphas_cumprod"] = torch.linspace(0.999, 0, 1000)
    content |= {"epoch": np.int64(3), "loss": np.float64(0.1)}
    torch.save(content, file)
    config = tmp_path / "config"
    for part in ("unet", "vae", "text_encoder", "tokenizer"):
        shutil.copytree(checkpoint_of("sd1") / part, config / part, ignore=shutil.ignore_patterns("*.safetensors"))
    done = export(file, "--config", config, "-o", tmp_path / "bundle", "--verify", "off")
    assert done.returncode == 0, done.stderr
    assert "note: the prediction type is v_prediction: so says the table alphas_cumprod" in done.stderr
    scheduler = Bundle(tmp_path / "bundle").scheduler()
    assert (scheduler["prediction_type"], scheduler["rescale_betas_zero_snr"]) == ("v_prediction", True)
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(checkpoint_of("sd1"))
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = diffusers.DDIMScheduler.from_config(scheduler)
    expected = theirs("a cat", generator=torch.Generator().manual_seed(2), **QUICK).images[0]
    with Pipeline.load(tmp_path / "bundle", engine="onnxruntime") as pipeline:
        result = pipeline("a cat", seed=2, **QUICK)
    np.testing.assert_allclose(result.images[0], expected.numpy(), atol=5e-3)


def test_cosxl(tmp_path: Path) -> None:
    file = write_single_file(checkpoint_of("sdxl"), tmp_path / "cosxl.safetensors", "sdxl")
    save_file(load_file(file) | {"edm_vpred.sigma_max": torch.tensor(120.0)}, file)
    config = tmp_path / "config"
    shutil.copytree(checkpoint_of("sdxl"), config, ignore=shutil.ignore_patterns("*.safetensors", "scheduler"))
    export_bundle(file, tmp_path / "bundle", sizes=SIZES, config=config, verify="off")
    theirs = diffusers.StableDiffusionXLPipeline.from_pretrained(checkpoint_of("sdxl"))
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = diffusers.EDMEulerScheduler(
        sigma_min=0.002, sigma_max=120.0, sigma_data=1.0, prediction_type="v_prediction", sigma_schedule="exponential"
    )
    expected = theirs("a cat", generator=torch.Generator().manual_seed(2), **QUICK).images[0]
    with Pipeline.load(tmp_path / "bundle", engine="onnxruntime") as pipeline:
        result = pipeline("a cat", seed=2, **QUICK)
    assert result.settings["scheduler"] == "EDMEulerScheduler"
    np.testing.assert_allclose(result.images[0], expected.numpy(), rtol=1e-3, atol=5e-3)
