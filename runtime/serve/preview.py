"""Previews: what a sample looks like on the way, roughly, without decoding it."""

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ...engines.bundle.manifest import PreviewMap
from ...engines.preview_map import preview

if TYPE_CHECKING:
    from ..denoise import Sample

__all__ = ["NO_PREVIEWS", "preview_image"]

NO_PREVIEWS = "partial_images: there are none, as an earlier version exported this bundle; export it again"


def preview_image(mapping: PreviewMap, sample: "Sample") -> Image.Image:
    """Return a sample as it is now, in the size that it will be decoded to."""
    # The solvers of the sigma space hold latents that grow with the noise: as the network sees them, they do not.
    position = min(sample.position, sample.evaluations - 1)
    small = Image.fromarray(preview(mapping, sample.latent * np.float32(sample.schedule.input_scale[position])))
    job = sample.job
    size = small.size if job is None else (job.width, job.height)
    return small.resize(size, Image.Resampling.BICUBIC)
