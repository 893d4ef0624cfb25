"""Preprocesses images for CLIP's networks, as transformers' ``CLIPImageProcessor`` does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["ClipPixels"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipPixels:
    """The settings of the preprocessing.

    Attributes:
        size: height and width of the result, in pixels.
        mean: is subtracted from each channel, float32 [3].
        std: divides each channel, float32 [3].
        rescale: factor of the bytes.

    """

    size: int
    mean: F32
    std: F32
    rescale: float

    @classmethod
    def of(cls, settings: Mapping[str, Any], size: int) -> "ClipPixels":
        """Make it from a bundle's file of settings."""
        mean, std = (np.asarray(settings[name], np.float32) for name in ("mean", "std"))
        return cls(size=size, mean=mean, std=std, rescale=float(settings["rescale"]))

    def prepared(self, image: Image.Image) -> F32:
        """Resize an image's shorter side to ``size``, crop the centre, and normalise it: float32 [size, size, 3]."""
        pixels = np.asarray(self._fitted(image.convert("RGB")))
        return self.normalised((pixels * np.float64(self.rescale)).astype(np.float32))

    def normalised(self, pixels: F32) -> F32:
        """Subtract the mean from pixels of 0 to 1, [..., 3], and divide by the standard deviation."""
        normal: F32 = (pixels - self.mean) / self.std
        return normal

    def _fitted(self, image: Image.Image) -> Image.Image:
        size, short = self.size, min(image.size)
        longer = int(size * max(image.size) / short)
        width, height = (size, longer) if image.width <= image.height else (longer, size)
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        return resized.crop((left, top, left + size, top + size))
