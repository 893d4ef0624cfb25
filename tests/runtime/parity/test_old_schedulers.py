"""Scheduler configs that diffusers' pipelines change when they open a checkpoint, down to the latents."""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from sdengine.engines.bundle.bundle import file_sha256
from sdengine.runtime import Pipeline

from ...bundles import bundle_of
from .oracle import oracle, picture, their_warnings

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PNDM = {"_class_name": "PNDMScheduler", **BETAS}
DDIM = {"_class_name": "DDIMScheduler", **BETAS}


def _with_scheduler(bundle: Path, config: dict[str, Any], target: Path) -> Path:
    """Return a copy of the bundle as if it had been exported from a checkpoint with this scheduler config."""
    shutil.copytree(bundle, target)
    (target / "scheduler.json").write_text(json.dumps(config))
    manifest = json.loads((target / "manifest.json").read_text())
    record = manifest["files"]["scheduler.json"]
    del manifest["checksum"]  # a bundle without one is taken as well
    record |= {"sha256": file_sha256(target / "scheduler.json"), "bytes": (target / "scheduler.json").stat().st_size}
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@pytest.mark.parametrize(
    ("kind", "task", "controlnets", "config", "timesteps"),
    [
        ("sd1", "text", 0, PNDM | {"steps_offset": 0, "skip_prk_steps": True}, [751, 501, 501, 251, 1]),
        ("sd1", "text", 0, PNDM | {"skip_prk_steps": True}, [751, 501, 501, 251, 1]),
        ("sd1", "text", 1, PNDM | {"steps_offset": 0, "skip_prk_steps": True}, [750, 500, 500, 250, 0]),
        ("sd1", "inpaint", 0, PNDM | {"steps_offset": 1}, [751, 501, 501, 251, 1]),
        ("sd1", "text", 0, DDIM | {"clip_sample": True}, [751, 501, 251, 1]),
        ("sd2", "image", 0, DDIM | {"prediction_type": "v_prediction"}, [751, 501, 251, 1]),
        ("sdxl", "text", 0, PNDM | {"steps_offset": 0, "skip_prk_steps": True}, [750, 500, 500, 250, 0]),
    ],
)
def test_the_latents_of_diffusers(
    tmp_path: Path, kind: str, task: str, controlnets: int, config: dict[str, Any], timesteps: list[int]
) -> None:
    arguments: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 4, "output_type": "latent"}
    arguments |= {"height": 64, "width": 64}
    if task != "text":
        arguments |= {"image": picture(64, 64), "strength": 1.0}
    if task == "inpaint":
        arguments["mask_image"] = picture(64, 64, hole=True)
    if controlnets:
        arguments["control_image"] = picture(64, 64, 3)
    theirs = dict(arguments)
    if controlnets:
        theirs["image"] = theirs.pop("control_image")
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    with their_warnings():
        reference = oracle(kind, task, controlnets)
        scheduler = getattr(diffusers, config["_class_name"]).from_pretrained(tmp_path)
        # A new pipeline changes the scheduler as from_pretrained does.
        reference = type(reference)(**(reference.components | {"scheduler": scheduler}))
        reference.set_progress_bar_config(disable=True)
        expected = reference(**theirs, generator=torch.Generator().manual_seed(3)).images[0]
    assert reference.scheduler.timesteps.tolist() == timesteps
    bundle = _with_scheduler(bundle_of(kind, controlnets=controlnets), config, tmp_path / "bundle")
    with Pipeline.load(bundle, engine="onnxruntime") as pipeline:
        result = pipeline(**arguments, seed=3)
    assert len(result.timings_ms.steps) == len(timesteps)
    np.testing.assert_allclose(result.images[0], expected.numpy(), atol=5e-3)
