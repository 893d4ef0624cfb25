"""LoRAs over plans: put in by refitting, there and back to the bit, refused by plans that cannot take them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdengine.engines.errors import UsageError
from sdengine.engines.trt import BuildOptions
from sdengine.runtime import Pipeline

from ...lora.networks import kohya_lora
from .plans import with_plans

SETTINGS: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 5, "output_type": "np"}


@pytest.mark.parametrize("cuda_graph", ["step", "loop"])
def test_there_and_back(tmp_path: Path, cuda_graph: str) -> None:
    path = with_plans("sd1", tmp_path / "bundle", options=BuildOptions(refit=True))
    loras = [kohya_lora("sd1", tmp_path / "a.safetensors", size=0.15)]
    with Pipeline.load(path, engine="onnxruntime", threads=1, loras=loras) as pipe:
        expected = pipe("a red cube", **SETTINGS).images
    with Pipeline.load(path, engine="tensorrt", cuda_graph=cuda_graph) as pipe:
        images: list[Any] = []
        for wanted in ([], loras, [], loras):
            pipe.set_loras(wanted)
            images += [pipe("a red cube", **SETTINGS).images for _ in range(2)]  # the second is captured
    for before, after in zip(images[:4], images[4:], strict=True):
        assert np.array_equal(before, after)
    assert np.array_equal(images[2], images[3]) and np.array_equal(images[2], expected)
    assert not np.array_equal(images[0], images[2])


def test_plans_that_cannot_be_refitted_stay_as_they_are(tmp_path: Path) -> None:
    path = with_plans("sd1", tmp_path / "bundle")
    lora = kohya_lora("sd1", tmp_path / "a.safetensors", size=0.15, network_names=("unet",))
    with Pipeline.load(path, engine="tensorrt") as pipe:
        before = pipe("a red cube", **SETTINGS).images
        with pytest.raises(UsageError, match="the plan's weights cannot be changed; build it with --refit"):
            pipe.set_loras([lora])
        assert np.array_equal(pipe("a red cube", **SETTINGS).images, before)
        assert set(pipe.components.ran.values()) == {"tensorrt"}
