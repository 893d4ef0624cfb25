"""Previews show, roughly, what a latent will be decoded to."""

import numpy as np
from sdengine.runtime import Pipeline
from sdengine.runtime.serve.preview import Previewer, fitted

from ...bundles import bundle_of


def test_a_linear_map_is_found_again() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.standard_normal((400, 4)), np.ones((400, 1))], axis=1).astype(np.float32)
    truth = rng.standard_normal((5, 3)).astype(np.float32)
    found, explained = fitted(features, features @ truth)
    assert np.allclose(found, truth, atol=0.01) and explained > 0.999
    _, of_noise = fitted(features, rng.standard_normal((400, 3)).astype(np.float32))
    assert of_noise < 0.1


def test_previews_have_the_size_of_the_image() -> None:
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1) as pipe:
        previewer = Previewer(pipe)
        (sample,) = pipe.prepare("a house", height=128, width=96, num_inference_steps=3, seed=1)
        first = previewer.show(sample)
        assert first.size == (96, 128) and first.mode == "RGB"
        assert previewer.explained > -0.1  # the weights are random: the map may see nothing but the mean colour
        for _ in pipe.denoise([sample]):
            pass
        assert not np.array_equal(np.asarray(previewer.show(sample)), np.asarray(first))
