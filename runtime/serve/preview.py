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
    from ..pipeline import Pipeline

__all__ = ["Previewer", "fitted"]

F32 = NDArray[np.float32]

_PIXELS = 1024
"""Pixels of latents that are decoded for the fit, at least; each latent has the least size that the bundle takes."""
_SEED = 0
_RIDGE = 1e-3
_HELD_OUT = 0.25


class Previewer:
    """Shows samples while they are denoised; fitted to a bundle's VAE at the first use.

    Args:
        pipeline: the bundle's.

    """

    def __init__(self, pipeline: "Pipeline") -> None:
        self._pipeline = pipeline
        self._map: F32 | None = None
        self.explained = 0.0
        """Share of the variance of the decoded colours that the map explains, on pixels that it was not fitted to."""

    def show(self, sample: "Sample") -> Image.Image:
        """Return a sample as it is now, in the size that it will be decoded to."""
        self.fit()
        assert self._map is not None
        # The solvers of the sigma space hold latents that grow with the noise: as the network sees them, they do not.
        position = min(sample.position, sample.evaluations - 1)
        latent = sample.latent * np.float32(sample.schedule.input_scale[position])
        colours = np.clip(_features(latent[None]) @ self._map, 0, 1)
        height, width = latent.shape[1:]
        small = Image.fromarray((colours.reshape(height, width, 3) * 255).round().astype(np.uint8))
        job = sample.job
        size = small.size if job is None else (job.width, job.height)
        return small.resize(size, Image.Resampling.BICUBIC)

    def fit(self) -> None:
        """Fit the map, once; takes as long as a few small images take to be decoded."""
        if self._map is not None:
            return
        rng = np.random.default_rng(_SEED)
        pairs = [self._pair(rng)]
        while sum(len(features) for features, _ in pairs) < _PIXELS:
            pairs.append(self._pair(rng))
        self._map, self.explained = fitted(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))

    def _pair(self, rng: np.random.Generator) -> tuple[F32, F32]:
        """Return features of a latent's pixels, and the mean colours that they are decoded to."""
        components = self._pipeline.components
        spec = components.spec("vae_decoder")
        # As small as pictures of this bundle are; tiles at an edge may be smaller still.
        sizes = components.spec("denoiser").axes if "denoiser" in components.bundle.manifest.components else {}
        axes = {name: min(sizes.get(name, axis).min, axis.max) for name, axis in spec.axes.items()}
        shape = spec.input("latent").resolve(axes)
        _, channels, height, width = shape
        # Smooth, as latents of images are: large areas, with some noise over them.
        coarse = rng.standard_normal((1, channels, -(-height // 4), -(-width // 4))).repeat(4, 2).repeat(4, 3)
        smooth = 0.9 * coarse[:, :, :height, :width] + 0.4 * rng.standard_normal((1, channels, height, width))
        latent = np.ascontiguousarray(smooth, np.float32)
        pixels = np.asarray(decoded(components, latent, "image", []), np.float32)
        factor = pixels.shape[1] // height
        blocks = pixels.reshape(height, factor, width, factor, 3).mean((1, 3))
        return _features(latent), blocks.reshape(-1, 3)


def fitted(features: F32, colours: F32) -> tuple[F32, float]:
    """Fit colours ``[N, 3]`` to features ``[N, C + 1]``, of which the last is 1, by least squares.

    Returns:
        The map ``[C + 1, 3]``, and the share of the colours' variance that it explains on a quarter of the rows, which
        the fit has not seen.

    """
    unseen = np.random.default_rng(_SEED).random(len(features)) < _HELD_OUT
    x, y = features[~unseen].astype(np.float64), colours[~unseen].astype(np.float64)
    ridge = _RIDGE * len(x) * np.diag([*[1.0] * (x.shape[1] - 1), 0.0])  # the mean colour is free
    linear = np.linalg.solve(x.T @ x + ridge, x.T @ y)
    rest = np.square(features[unseen] @ linear - colours[unseen]).sum()
    spread = np.square(colours[unseen] - y.mean(0)).sum()
    return np.asarray(linear, np.float32), float(1 - rest / max(spread, 1e-12))


def _features(latent: F32) -> F32:
    """Return [h * w, C + 1] of a latent [1, C, h, w]: its channels, and 1."""
    channels = latent.shape[1]
    pixels = latent[0].reshape(channels, -1).T
    return np.concatenate([pixels, np.ones((len(pixels), 1), np.float32)], axis=1)
