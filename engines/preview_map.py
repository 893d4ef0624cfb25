"""What latents look like, roughly, without decoding them: a linear map from a latent's pixel to a colour.

A latent's pixel is a linear map away from the mean colour of the pixels that it is decoded to, well enough to see where
things are. Export fits the map to the VAE; the bundle's manifest holds it.
"""

import numpy as np
from numpy.typing import NDArray

from .bundle.manifest import PreviewMap

__all__ = ["features", "preview"]

F32 = NDArray[np.float32]


def features(latent: F32) -> F32:
    """Return what the map is applied to, [h * w, C + 1], of a latent [C, h, w]: its channels, and 1."""
    pixels = latent.reshape(len(latent), -1).T
    return np.concatenate([pixels, np.ones((len(pixels), 1), np.float32)], axis=1)


def preview(mapping: PreviewMap, latent: F32) -> NDArray[np.uint8]:
    """Return the colours [h, w, 3] of a latent [C, h, w], one pixel for each of its own."""
    colours = np.clip(features(latent) @ np.asarray(mapping.colours, np.float32), 0, 1)
    return (colours.reshape(*latent.shape[1:], 3) * 255).round().astype(np.uint8)
