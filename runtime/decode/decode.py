"""From samples to images: decoded one at a time, so that memory does not grow with their number."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engines.engine import Array
from ...engines.errors import NonFiniteError
from ...engines.memory import HOST, Buffer
from ..denoise.sample import Sample
from ..open_engines import Components
from ..request.large_numbers import large_numbers
from .image_file import images_from_pixels
from .overflow import decoded
from .safety_checker import black_where_flagged
from .watermark import add_watermark, watermark_available

__all__ = ["images_of", "latents_of", "pixels_of"]

F32 = NDArray[np.float32]


def latents_of(components: Components, samples: Sequence[Sample]) -> F32:
    """Return latents, float32 [N, C, h, w].

    Raises:
        NonFiniteError: the denoiser produced NaN or infinity; the text names arguments whose numbers are so large that
            they are the likely cause, else the engine.

    """
    latents = np.stack([sample.latent for sample in samples])
    if not np.isfinite(latents).all():
        only_fp32 = set(components.bundle.component("denoiser").graphs) == {"fp32"}
        other = "use another engine" + ("" if only_fp32 else " or export with --precision fp32")
        raise NonFiniteError(
            f"the denoiser produced NaN or infinity on {components.ran.get('denoiser')}; {_too_large(samples) or other}"
        )
    return latents


def pixels_of(components: Components, samples: Sequence[Sample], warnings: list[str]) -> F32:
    """Decode to pixels, float32 [N, H, W, 3] of 0 to 1, with the watermark if the request or its family has one.

    Images that the safety checker flags are black.

    Args:
        components: the engines.
        samples: of one job.
        warnings: what the user should know is added to it.

    Raises:
        NonFiniteError: a network produced NaN or infinity.

    """
    pixels = np.asarray(_decoded(components, samples, "image", warnings), np.float32)
    pixels = add_watermark(pixels) if _wants_watermark(components, samples) else pixels
    return black_where_flagged(components, samples, pixels, warnings)


def images_of(components: Components, samples: Sequence[Sample], warnings: list[str]) -> list[Image.Image]:
    """Decode to PIL images, see :func:`pixels_of`; with ``padding_mask_crop`` they are pasted into the input image."""
    if _wants_watermark(components, samples):
        pixels = (pixels_of(components, samples, warnings) * 255).round().astype(np.uint8)
    else:
        pixels = np.asarray(_decoded(components, samples, "picture", warnings), np.uint8)
        pixels = black_where_flagged(components, samples, pixels, warnings)
    crops = [None if sample.job is None else sample.job.crop for sample in samples]
    images = images_from_pixels(pixels)
    return [image if crop is None else crop.paste(image) for image, crop in zip(images, crops, strict=True)]


def _decoded(components: Components, samples: Sequence[Sample], output: str, warnings: list[str]) -> Array:
    """Run the decoder for each sample; return its output ``image`` or ``picture``, [N, H, W, 3]."""
    try:
        outputs = [decoded(components, _latent(components, sample), output, warnings) for sample in samples]
    except NonFiniteError as error:
        latents_of(components, samples)  # raises an error that names the denoiser, if the latents are not finite
        if remedy := _too_large(samples):
            raise NonFiniteError(f"the decoder produced NaN or infinity; {remedy}") from error
        raise
    return np.concatenate(outputs)


def _too_large(samples: Sequence[Sample]) -> str:
    """Return what to change where the request's numbers are the likely cause, else nothing."""
    job: Any = samples[0].job
    large = [] if job is None else large_numbers(job.request)
    return f"choose smaller numbers: {', '.join(large)}" if large else ""


def _latent(components: Components, sample: Sample) -> Buffer:
    """Return a sample's latent, [1, C, h, w], in a memory that the decoder can read."""
    memory, state = sample.place
    latent: Buffer = state[0:1]
    return latent if memory in (HOST, components.memory_of("vae_decoder")) else memory.read(latent)


def _wants_watermark(components: Components, samples: Sequence[Sample]) -> bool:
    """Whether to add the watermark: as the request says, or as diffusers does, if the package is installed."""
    job: Any = samples[0].job
    requested = None if job is None else job.request.watermark
    if requested is None:
        return components.bundle.family.watermark and watermark_available()
    return bool(requested)
