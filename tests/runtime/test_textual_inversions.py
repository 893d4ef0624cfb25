"""Words of one's own, from a file to the picture: on the command line, in Python, and as diffusers draws them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file
from sdengine.runtime import Pipeline

from ..bundles import bundle_of, checkpoint_of

SETTINGS: dict[str, Any] = {"num_inference_steps": 2, "height": 64, "width": 64, "guidance_scale": 1.0}


def _vectors(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return 0.5 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def _draw(bundle: Path, prompt: str, *sources: Any) -> np.ndarray:
    with Pipeline.load(bundle, engine="onnxruntime", textual_inversions=sources) as pipeline:
        return np.asarray(pipeline(prompt, seed=1, output_type="latent", **SETTINGS).images[0])


def test_the_picture_of_diffusers(tmp_path: Path) -> None:
    torch.save(_vectors(2, 24), tmp_path / "bare.pt")
    torch.save({"string_to_param": {"*": _vectors(1, 24, 1)}, "name": "style"}, tmp_path / "style.pt")
    mine = _draw(bundle_of("sd1"), "a <toy> in style", (tmp_path / "bare.pt", "<toy>"), tmp_path / "style.pt")
    theirs = StableDiffusionPipeline.from_pretrained(checkpoint_of("sd1"), requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    theirs.load_textual_inversion(_vectors(2, 24), token="<toy>")
    theirs.load_textual_inversion(str(tmp_path), weight_name="style.pt")
    generator = torch.Generator().manual_seed(1)
    expected = theirs("a <toy> in style", generator=generator, output_type="latent", **SETTINGS).images[0]
    np.testing.assert_allclose(mine, expected.numpy(), atol=2e-3)
    assert np.abs(_draw(bundle_of("sd1"), "a <toy> in style") - expected.numpy()).max() > 0.05


def test_the_command_line_and_python_agree(tmp_path: Path) -> None:
    tensors = {"text_encoders_0": _vectors(2, 24), "text_encoders_1": _vectors(2, 32)}
    save_file(tensors, tmp_path / "embeddings.pti")
    torch.save(_vectors(1, 24, 5), tmp_path / "x=1.pt")
    command = [sys.executable, "-m", "sdengine.runtime", "run", bundle_of("sdxl"), "a <first><second> <x>", "--json"]
    command += ["--textual-inversion", f"{tmp_path / 'embeddings.pti'}=<first>, <second>"]
    command += ["--textual-inversion", f"{tmp_path / 'x=1.pt'}=<x>", "--engine", "onnxruntime"]
    command += ["--steps", "2", "--seed", "1", "--height", "64", "--width", "64", "--guidance-scale", "1"]
    command += ["--output-type", "latent", "-o", tmp_path / "x.npy"]
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    [warning] = [w for w in json.loads(done.stdout)["warnings"] if "textual inversion" in w]
    assert warning == "textual inversion '<x>' has vectors for text_encoder only: text_encoder_2 reads it as text"
    sources = ((tmp_path / "embeddings.pti", ["<first>", "<second>"]), (tmp_path / "x=1.pt", "<x>"))
    here = _draw(bundle_of("sdxl"), "a <first><second> <x>", *sources)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy")[0], here)
    own = _draw(bundle_of("sdxl"), "a <s0><s1> <x>", tmp_path / "embeddings.pti", sources[1])
    np.testing.assert_array_equal(own, here)


@pytest.mark.parametrize(
    ("value", "message"),
    [("bare.pt", "bare.pt=WORD"), ("none.pt=<x>", "there is no file"), ("bare.pt=<a>,<b>,<c>", "but 3 words")],
)
def test_a_usage_error_of_the_command_line(tmp_path: Path, value: str, message: str) -> None:
    torch.save(_vectors(2, 24), tmp_path / "bare.pt")
    command = [sys.executable, "-m", "sdengine.runtime", "run", bundle_of("sd1"), "x", "--textual-inversion", value]
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["bare.pt"]
