import json
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sdengine.engines.errors import CheckpointError
from sdengine.export.demo.training.captions import plain_caption
from sdengine.export.demo.training.evaluate import fresh_scenes
from sdengine.export.demo.training.judge import read_checkpoint
from sdengine.export.demo.training.painter import drawer
from sdengine.export.demo.training.read_back import read_back
from sdengine.export.demo.training.write_checkpoint import CHECKPOINT

WEIGHTS = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
    "text_encoder_2/model.safetensors",
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def test_everything_together_is_small() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.rglob("*") if path.is_file()) <= 10_000_000


@pytest.mark.parametrize("file", WEIGHTS)
def test_weights_are_finite_float16(file: str) -> None:
    with safe_open(CHECKPOINT / file, "pt") as stored:
        for name in stored.keys():  # noqa: SIM118 - the file is no mapping
            tensor = stored.get_tensor(name)
            assert tensor.dtype == torch.float16, name
            assert torch.isfinite(tensor).all(), name


@pytest.mark.parametrize("file", [file for file in WEIGHTS if file.startswith("text")])
def test_text_encoders_have_published_names(file: str) -> None:
    # transformers before 5.6 finds no others, and silently draws with an encoder of new random weights
    with safe_open(CHECKPOINT / file, "pt") as stored:
        assert all(name.startswith(("text_model.", "text_projection.")) for name in stored.keys())  # noqa: SIM118


def test_the_layout_is_that_of_an_sdxl_pipeline() -> None:
    index = json.loads((CHECKPOINT / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    for name in ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae"):
        assert (CHECKPOINT / name).is_dir(), name
    assert (CHECKPOINT / "README.md").is_file()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no unet/"):
        read_checkpoint(tmp_path)


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    """Eight fresh scenes as our own sampler draws them."""
    torch.set_num_threads(1)
    draw = drawer(*read_checkpoint(CHECKPOINT))
    return list(draw([plain_caption(scene) for scene in fresh_scenes(8)], range(8)))


def test_it_draws_what_it_was_never_shown(drawn: list[np.ndarray]) -> None:
    readings = [read_back(pixels) for pixels in drawn]
    for trait, least in (("background", 8), ("colour", 7), ("shape", 6)):
        right = sum(getattr(r, trait) == getattr(s, trait) for r, s in zip(readings, fresh_scenes(8), strict=True))
        assert right >= least, trait


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, in its scheduler
def test_diffusers_loads_it_without_a_warning_and_draws_the_same(
    drawn: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="diffusers|transformers|torch")  # their own business, not ours
        from diffusers import StableDiffusionXLPipeline
        from diffusers.utils import logging as diffusers_logging
    diffusers_logging.enable_propagation()
    load = StableDiffusionXLPipeline.from_pretrained  # imports lazily, with remarks of its own
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        pipe = load(CHECKPOINT)
    assert caplog.messages == []
    pipe.to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    images = pipe(
        [plain_caption(scene) for scene in fresh_scenes(2)],
        height=128,
        width=128,
        num_inference_steps=20,
        guidance_scale=5.0,
        generator=[torch.Generator().manual_seed(seed) for seed in range(2)],
        output_type="np",
    ).images
    for ours, theirs in zip(drawn, images, strict=False):
        assert np.abs(ours / 255 - theirs).max() < 0.01  # two steps of 255
