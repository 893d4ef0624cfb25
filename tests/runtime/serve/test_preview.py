"""Previews show, roughly, what a latent will be decoded to."""

import numpy as np
from sdengine.engines.bundle.bundle import Bundle
from sdengine.runtime import Pipeline
from sdengine.runtime.serve.preview import preview_image

from ...bundles import bundle_of


def test_previews_have_the_size_of_the_image() -> None:
    mapping = Bundle(bundle_of("sd1")).manifest.preview
    assert mapping is not None
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1) as pipe:
        (sample,) = pipe.prepare("a house", height=128, width=96, num_inference_steps=3, seed=1)
        first = preview_image(mapping, sample)
        assert first.size == (96, 128) and first.mode == "RGB"
        for _ in pipe.denoise([sample]):
            pass
        assert not np.array_equal(np.asarray(preview_image(mapping, sample)), np.asarray(first))
