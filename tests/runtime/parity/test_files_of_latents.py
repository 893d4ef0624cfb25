"""Latents that were written to a ``.npy`` are taken as ``image``, as the array itself is."""

from pathlib import Path

import numpy as np
import pytest
from sdengine.engines.errors import UsageError

from .oracle import ours


def test_latents_in_a_file(tmp_path: Path) -> None:
    base, refiner = ours("sdxl"), ours("sdxl_refiner")
    settings = {"prompt": "a cat", "num_inference_steps": 4, "height": 64, "width": 64, "seed": 1}
    latents = base(**settings, denoising_end=0.5, output_type="latent").latents
    np.save(tmp_path / "latents.npy", latents)
    found = [
        refiner(prompt="a cat", num_inference_steps=4, seed=1, denoising_start=0.5, image=x, output_type="np").images
        for x in (latents, tmp_path / "latents.npy", [str(tmp_path / "latents.npy")])
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_file_that_is_no_array_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(UsageError, match=r"a\.npy cannot be read as an array"):
        ours("sdxl")(prompt="a cat", image=tmp_path / "a.npy")
