"""Previews: what a latent looks like, roughly, without decoding it.

A latent's pixel is a linear map away from the mean colour of the pixels that it is decoded to, well enough to see where
things are. The map is fitted to the VAE that the bundle holds, by least squares on latents that it decodes itself.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..decode.overflow import decoded

if TYPE_CHECKING:
    from ..denoise import Sample
    from ..open_engines import Components

__all__ = ["Previewer"]

F32 = NDArray[np.float32]

_FITS = 6
"""Latents that are decoded for the fit, each of the least size that the bundle takes."""
_SEED = 0
_RIDGE = 1e-3


class Previewer:
    """Shows samples while they are denoised; fitted to a bundle's VAE at the first use.

    Args:
        components: the bundle's engines.

    """

    def __init__(self, components: "Components") -> None:
        self._components = components
        self._map: F32 | None = None
        self.explained = 0.0
        """Share of the variance of the decoded colours that the map explains, on latents it was not fitted to."""

    def show(self, sample: "Sample") -> Image.Image:
        """Return a sample as it is now, in the size that it will be decoded to."""
        if self._map is None:
            self._map = self._fitted()
        # The solvers of the sigma space hold latents that grow with the noise: as the network sees them, they do not.
        position = min(sample.position, sample.evaluations - 1)
        latent = sample.latent * np.float32(sample.schedule.input_scale[position])
        colours = np.clip(_features(latent[None]) @ self._map, 0, 1)
        height, width = latent.shape[1:]
        small = Image.fromarray((colours.reshape(height, width, 3) * 255).round().astype(np.uint8))
        job = sample.job
        size = small.size if job is None else (job.width, job.height)
        return small.resize(size, Image.Resampling.BICUBIC)

    def _fitted(self) -> F32:
        pairs = [self._pair(np.random.default_rng(_SEED + i)) for i in range(_FITS + 1)]
        features, colours = (np.concatenate(parts).astype(np.float64) for parts in zip(*pairs[:-1], strict=True))
        ridge = _RIDGE * len(features) * np.eye(features.shape[1])
        found = np.linalg.solve(features.T @ features + ridge, features.T @ colours)
        unseen, expected = pairs[-1]
        rest, spread = np.square(unseen @ found - expected).sum(), np.square(expected - expected.mean(0)).sum()
        self.explained = float(1 - rest / max(spread, 1e-12))
        return np.asarray(found, np.float32)

    def _pair(self, rng: np.random.Generator) -> tuple[F32, F32]:
        """Return features of a latent's pixels, and the mean colours that they are decoded to."""
        spec = self._components.spec("vae_decoder")
        axes = {name: axis.min for name, axis in spec.axes.items()}
        shape = spec.input("latent").resolve(axes)
        _, channels, height, width = shape
        # Smooth, as latents of images are: large areas, with some noise over them.
        coarse = rng.standard_normal((1, channels, -(-height // 4), -(-width // 4))).repeat(4, 2).repeat(4, 3)
        smooth = 0.9 * coarse[:, :, :height, :width] + 0.4 * rng.standard_normal((1, channels, height, width))
        latent = np.ascontiguousarray(smooth, np.float32)
        pixels = np.asarray(decoded(self._components, latent, "image", []), np.float32)
        factor = pixels.shape[1] // height
        blocks = pixels.reshape(height, factor, width, factor, 3).mean((1, 3))
        return _features(latent), blocks.reshape(-1, 3)


def _features(latent: F32) -> F32:
    """Return [h * w, C + 1] of a latent [1, C, h, w]: its channels, and 1."""
    channels = latent.shape[1]
    pixels = latent[0].reshape(channels, -1).T
    return np.concatenate([pixels, np.ones((len(pixels), 1), np.float32)], axis=1)
