"""Large pictures in tiles come out as diffusers' tiles do; ``auto`` decides by the memory, and says so."""

from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.runtime import Pipeline
from sdengine.runtime.decode import vae_tiling
from sdengine.runtime.decode.vae_tiling import check_vae_tiling

from ...bundles import bundle_of
from .oracle import oracle, ours, picture, psnr, their_warnings

TILE = 64
"""Pixels: what the tiny VAEs say that they were trained on."""


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Pipeline:
    pipe = ours("sd1")
    monkeypatch.setattr(pipe.components, "vae_tiling", getattr(request, "param", "on"))
    return pipe


def theirs(task: str, **arguments: Any) -> Any:
    reference = oracle("sd1", task)
    reference.vae.enable_tiling()
    try:
        with their_warnings():
            return reference(**arguments, generator=torch.Generator().manual_seed(5), output_type="np").images
    finally:
        reference.vae.disable_tiling()


@pytest.mark.parametrize(("height", "width"), [(128, 128), (64, 104), (120, 72)])
def test_decoded_in_tiles(tiled: Pipeline, height: int, width: int) -> None:
    settings = {"prompt": "a cat", "num_inference_steps": 2, "height": height, "width": width}
    expected = theirs("text", **settings)
    result = tiled(**settings, seed=5, output_type="np")
    assert psnr(result.images, expected) >= 80
    assert not [text for text in result.warnings if "tiles" in text], "it was asked for"
    tiled.components.vae_tiling = "off"
    assert psnr(tiled(**settings, seed=5, output_type="np").images, expected) < 60, "the case tells tiles from none"
    tiled.components.vae_tiling = "on"
    images = tiled(**settings, seed=5).images
    assert np.abs(np.asarray(images[0]) / 255 - result.images[0]).max() <= 0.5 / 255 + 1e-6


def test_encoded_in_tiles(tiled: Pipeline) -> None:
    settings = {"prompt": "a cat", "image": picture(128, 112), "strength": 0.5, "num_inference_steps": 4}
    assert psnr(tiled(**settings, seed=5, output_type="np").images, theirs("image", **settings)) >= 80


def test_small_pictures_are_not_cut(tiled: Pipeline) -> None:
    settings = {"prompt": "a cat", "num_inference_steps": 1, "height": 64, "width": 64, "seed": 1}
    whole = np.asarray(tiled(**settings).images[0])
    tiled.components.vae_tiling = "off"
    np.testing.assert_array_equal(whole, np.asarray(tiled(**settings).images[0]))


@pytest.mark.parametrize("tiled", ["auto"], indirect=True)
def test_auto_cuts_where_memory_is_short_and_says_so(tiled: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"prompt": "a cat", "num_inference_steps": 1, "height": 128, "width": 128, "seed": 1}
    assert not [text for text in tiled(**settings).warnings if "tiles" in text]
    monkeypatch.setattr(vae_tiling, "scratch_bytes", lambda config, height, width, precision: height * width << 17)
    monkeypatch.setattr(vae_tiling, "free_host_memory", lambda: 10**9)
    said = [text for text in tiled(**settings).warnings if "tiles" in text]
    assert len(said) == 1
    assert "128x128 would take about 2.1 GB, and 1.0 GB are free" in said[0]


@pytest.mark.parametrize("tiled", [24], indirect=True)
def test_tiles_that_the_bundle_does_not_take_are_refused(tiled: Pipeline) -> None:
    with pytest.raises(UsageError, match=r"tiles of 24 pixels.*--vae-tiling on"):
        tiled(prompt="a cat", num_inference_steps=1, height=128, width=128)


@pytest.mark.parametrize("value", ["yes", 0, -64, True, None, 3.5])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="neither auto, on, off"):
        check_vae_tiling(value)
    with pytest.raises(UsageError):
        Pipeline.load(bundle_of("sd1"), vae_tiling=value)  # type: ignore[arg-type]
