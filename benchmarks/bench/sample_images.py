"""Images of a report: how far apart two are, and a small copy for the page."""

import base64
import hashlib
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .report import ImageDifference, SampleImage

__all__ = ["difference_between", "sample_of"]

U8 = NDArray[np.uint8]

_SIDE = 384  # pixels, of the copy


def difference_between(images: U8, expected: U8) -> ImageDifference:
    """Compare images, uint8 [N, height, width, 3], with as many others; the worst counts."""
    error = np.abs(images.astype(np.float64) - expected)
    rms = float(np.sqrt(np.max(np.mean(error**2, axis=(1, 2, 3)))))
    psnr = round(float(20 * np.log10(255 / rms)), 2) if rms else None
    return ImageDifference(largest=float(error.max()), rms=round(rms, 4), psnr_db=psnr)


def sample_of(pixels: U8, seed: int) -> SampleImage:
    """Make the record of a picture, uint8 [height, width, 3]; where it fits, the copy is lossless."""
    image = Image.fromarray(pixels)
    small = max(image.size) <= _SIDE
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=small, quality=90)
    data = base64.b64encode(stream.getvalue()).decode()
    hashed = hashlib.sha256(pixels.tobytes()).hexdigest()
    return SampleImage(seed=seed, sha256=hashed, data=f"data:image/webp;base64,{data}")
