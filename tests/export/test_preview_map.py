"""Export fits the map of previews to the VAE; what it shows is near what the VAE decodes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.preview_map import preview
from sdengine.export import export_bundle
from sdengine.export.preview_map import fitted
from sdengine.runtime import Pipeline

from ..bundles import bundle_of


def test_a_linear_map_is_found_again() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.standard_normal((400, 4)), np.ones((400, 1))], axis=1).astype(np.float32)
    truth = rng.standard_normal((5, 3)).astype(np.float32)
    mapping, explained = fitted(features, features @ truth)
    assert np.allclose(mapping, truth, atol=0.01) and explained > 0.999
    _, of_noise = fitted(features, rng.standard_normal((400, 3)).astype(np.float32))
    assert of_noise < 0.1


@pytest.mark.parametrize("kind", ["sd1", "sdxl", "kandinsky"])
def test_every_family_has_a_map(kind: str) -> None:
    bundle = Bundle(bundle_of(kind))
    mapping = bundle.manifest.preview
    assert mapping is not None
    latent = np.zeros((bundle.autoencoder.latent, 5, 7), np.float32)
    assert preview(mapping, latent).shape == (5, 7, 3)


@pytest.mark.slow
def test_a_preview_is_near_the_image(tmp_path: Path) -> None:
    bundle = export_bundle("demo", tmp_path / "demo", sizes="128x128", batch="1", verify="off")
    mapping = bundle.manifest.preview
    assert mapping is not None and mapping.explained > 0.7
    with Pipeline.load(tmp_path / "demo") as pipe:
        request = {"prompt": "a red circle on a blue background", "num_inference_steps": 10, "seed": 3}
        result = pipe(**request, output_type="latent")
        (image,) = pipe(**request).images
    small = preview(mapping, result.latents[0])
    truth = np.asarray(image.resize(small.shape[1::-1], Image.Resampling.BOX))
    # Paler than the image, as latents of other images are brighter; but each thing is where it is.
    assert np.corrcoef(small.ravel(), truth.ravel())[0, 1] > 0.9
