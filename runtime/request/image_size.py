"""The height and width to generate: those of the request, of its image, or of the bundle."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.nets.config import UNetConfig
from ...engines.spec import AxisRange
from .input_images import InputImage, natural_size
from .request import Request

__all__ = ["image_size"]

F32 = NDArray[np.float32]


def image_size(
    request: Request,
    task: str,
    bundle: Bundle,
    *,
    latents: F32 | None,
    images: Sequence[InputImage],
    control_images: Sequence[Sequence[InputImage]],
    notes: list[str],
) -> tuple[int, int]:
    """Return the height and the width to generate at, by the rules of diffusers' pipelines.

    Args:
        request: the request.
        task: ``text``, ``image`` or ``inpaint``.
        bundle: the bundle.
        latents: float32 [N, C, h, w], the image to start from, if it is latents.
        images: the images to start from, if they are pixels.
        control_images: the images of each ControlNet.
        notes: what the user should know is added to it.

    Raises:
        UsageError: the networks cannot run that size, or this bundle was not exported for it.

    """
    factor, rounded = bundle.autoencoder.factor, bundle.family.sizes == "rounded"
    default = size = bundle.manifest.default_size
    if latents is not None:
        size = (latents.shape[2] * factor, latents.shape[3] * factor)
    elif rounded:
        pass  # its pipelines take no size from an image
    elif images and (task == "image" or control_images):  # not in inpainting without ControlNet
        size = natural_size(images[0], factor)
    elif control_images and task == "text":
        size = natural_size(control_images[0][0], factor)
    height = size[0] if request.height is None else request.height
    width = size[1] if request.width is None else request.width
    if latents is not None and (height, width) != size:
        raise UsageError(f"the latents are of an image of {size[1]}x{size[0]} pixels, not {width}x{height}")
    if rounded:
        height, width = _rounded_up(height, width, task, bundle, of_latents=latents is not None, notes=notes)
    axes = next(iter(bundle.component("denoiser").graphs.values())).spec.axes  # in latent pixels
    for name, side, axis in (("height", height, "h"), ("width", width, "w")):
        of_image = getattr(request, name) is None and latents is None and size != default
        _check_side(name, side, factor, axes[axis], of_image=of_image)
    return height, width


def _rounded_up(
    height: int, width: int, task: str, bundle: Bundle, *, of_latents: bool, notes: list[str]
) -> tuple[int, int]:
    """Return a size rounded up as in diffusers.

    diffusers rounds up to a multiple of the square of the VAE's factor, but does not round in image-to-image. There,
    sizes that the UNet cannot run are rounded up.
    """
    unet, factor = bundle.config("unet"), bundle.autoencoder.factor
    assert isinstance(unet, UNetConfig)
    levels = len(unet.down)
    multiple = bundle.family.size_multiple(factor, levels) if task == "image" else bundle.family.rounds_to(factor)
    rounded = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    if rounded != (height, width):
        if of_latents:
            raise UsageError(f"image, as latents, must be of an image whose sides are multiples of {multiple} pixels")
        notes.append(
            f"generated at {rounded[1]}x{rounded[0]}, not at {width}x{height}: sides are multiples of {multiple} pixels"
        )
    return rounded


def _check_side(name: str, side: int, factor: int, axis: AxisRange, *, of_image: bool = False) -> None:
    least, most = axis.min * factor, axis.max * factor
    nearest = min(max(round(side / factor) * factor, least), most)
    works = f"the nearest that works is {nearest}"
    if of_image:
        works += "; it is the image's own: give height and width to generate at another size"
    if side % factor:
        raise UsageError(f"{name}={side} is no multiple of {factor}; {works}")
    if not least <= side <= most:
        raise UsageError(
            f"{name}={side} is outside this bundle's {least} to {most} pixels; {works}; an export for other sizes "
            "(--sizes, or sizes= of from_pretrained) takes others"
        )
