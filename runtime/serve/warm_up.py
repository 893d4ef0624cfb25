"""The request that a bundle is warmed up with: the shortest that it can be asked for."""

from typing import Any

from PIL import Image

from ...engines.bundle.bundle import Bundle
from ...engines.nets.config import UNetConfig

__all__ = ["warm_up_settings"]

_STEPS = 2
"""The first of a shape may compile something."""


def warm_up_settings(bundle: Bundle, height: int | None, width: int | None) -> dict[str, Any]:
    """Return the arguments of a request: with an image, a mask or a hint where the bundle generates nothing without.

    Args:
        bundle: the bundle.
        height: in pixels; None is the bundle's.
        width: in pixels; None is the bundle's.

    """
    height, width = height or bundle.manifest.default_size[0], width or bundle.manifest.default_size[1]
    unet, family = bundle.config("unet"), bundle.family
    assert isinstance(unet, UNetConfig)
    settings = {"prompt": "", "seed": 0, "num_inference_steps": _STEPS, "height": height, "width": width}
    settings |= {f"{stage.network}_num_inference_steps": _STEPS for stage in family.stages}
    if unet.inpaints:
        settings |= {"image": _grey(height, width), "mask_image": Image.new("L", (width, height), "white")}
    elif bundle.manifest.model_index.get("requires_aesthetics_score"):  # a refiner
        settings |= {"image": _grey(height, width), "strength": 1.0}
    if unet.image_hint:
        multiple = family.rounds_to(bundle.autoencoder.factor)
        settings["hint"] = _grey(*(-(-side // multiple) * multiple for side in (height, width)))
    return settings


def _grey(height: int, width: int) -> Image.Image:
    return Image.new("RGB", (width, height), "grey")
