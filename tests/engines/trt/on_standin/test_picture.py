"""The pipeline draws through plans what it draws without them."""

from pathlib import Path

import numpy as np
from sdengine.runtime import Pipeline

from .counts import count


def test_a_picture_is_the_same(bundle: Path) -> None:
    settings = {"height": 64, "width": 96, "num_inference_steps": 3, "seed": 5, "output_type": "np"}
    with Pipeline.load(bundle, engine="onnxruntime", threads=1) as pipe:
        wanted = pipe("a red cube", **settings)
    with Pipeline.load(bundle, engine="tensorrt") as pipe:
        found = pipe("a red cube", **settings)
        assert np.array_equal(found.images, wanted.images)
        assert set(found.engines.values()) == {"tensorrt"} and found.fallbacks == ()
        made = count("allocated")
        again = pipe("a red cube", **settings)
        assert np.array_equal(again.images, wanted.images)
        assert count("allocated") == made, "the second picture allocates nothing"
