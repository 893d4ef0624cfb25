"""Checks generated images with the checkpoint's safety checker, as diffusers' pipelines of Stable Diffusion do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engines.bundle.bundle import Bundle
from ...engines.nets.safety_checker_config import SPECIAL_CONCEPTS, SafetyCheckerConfig
from ..denoise.sample import Sample
from ..open_engines import Components
from ..request.clip_pixels import ClipPixels
from .overflow import run_finite

__all__ = ["SWITCHED_OFF", "black_where_flagged"]

SWITCHED_OFF = "the safety checker is switched off: nothing has looked at the images"
_SETTINGS = "feature_extractor.json"
_MORE_CARE = np.float32(0.01)
"""What is added to the margins of later concepts, once one of the special concepts was found."""


def black_where_flagged(
    components: Components, samples: Sequence[Sample], pixels: NDArray[Any], warnings: list[str]
) -> NDArray[Any]:
    """Make the images black that the safety checker flags, and return all; the samples' ``nsfw`` says which they are.

    Args:
        components: the engines; without a safety checker in the bundle, the images are returned unchanged.
        samples: of one job, one for each image.
        pixels: [N, H, W, 3], uint8, or float32 of 0 to 1; changed in place.
        warnings: gets a warning for each flagged image, or one if the checker is switched off.

    Raises:
        NonFiniteError: the checker produced NaN or infinity, so that an image could not be checked.

    """
    name = components.bundle.safety_checker
    if name is None:
        return pixels
    if not _is_on(components, samples):
        warnings.append(SWITCHED_OFF)
        return pixels
    prepare = _preparation(components.bundle, name)
    for image, sample in zip(pixels, samples, strict=True):
        image_bytes = image if image.dtype == np.uint8 else (image * 255).round().astype(np.uint8)
        inputs = {"pixels": prepare.prepared(Image.fromarray(image_bytes))[None]}
        margins = run_finite(components, name, inputs, warnings, "margins", "margins")[0]
        sample.nsfw = _is_flagged(np.asarray(margins, np.float32))
        if sample.nsfw:
            image[...] = 0
            warnings.append(
                f"the safety checker flagged the image of seed {sample.seed}, which is black instead; "
                "try another prompt or seed"
            )
    return pixels


def _is_on(components: Components, samples: Sequence[Sample]) -> bool:
    """Whether to run the checker: as the request says, else as the pipeline was opened."""
    job: Any = samples[0].job
    requested = None if job is None else job.request.safety_checker
    return components.safety_checker if requested is None else bool(requested)


def _preparation(bundle: Bundle, name: str) -> ClipPixels:
    config = bundle.config(name)
    assert isinstance(config, SafetyCheckerConfig)
    return ClipPixels.of(bundle.settings(_SETTINGS), config.encoder.size)


def _is_flagged(margins: NDArray[np.float32]) -> bool:
    """Decide as ``StableDiffusionSafetyChecker`` does, which rounds to three digits, and adjusts the later margins.

    Args:
        margins: for each concept its cosine minus its threshold, float32; the special concepts come first.

    """
    adjustment = np.float32(0.0)
    for margin in margins[:SPECIAL_CONCEPTS]:
        if np.round(margin + adjustment, 3) > 0:
            adjustment = _MORE_CARE
    return bool((np.round(margins[SPECIAL_CONCEPTS:] + adjustment, 3) > 0).any())
