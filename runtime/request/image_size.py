"""The height and width to generate: those of the request, of its image, or of the bundle."""

from collections.abc import Mapping, Sequence

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
    if bundle.family.sizes == "rounded":
        return _rounded_size(request, task, bundle, latents, notes)
    return _size_of_image(request, task, bundle, latents, images, control_images)


def _size_of_image(
    request: Request,
    task: str,
    bundle: Bundle,
    latents: F32 | None,
    images: Sequence[InputImage],
    control_images: Sequence[Sequence[InputImage]],
) -> tuple[int, int]:
    """Return the request's size, else its image's (but not in inpainting without ControlNet), else the bundle's."""
    factor = bundle.autoencoder.factor
    size = bundle.manifest.default_size
    if latents is not None:
        size = (latents.shape[2] * factor, latents.shape[3] * factor)
    elif images and (task == "image" or control_images):
        size = natural_size(images[0], factor)
    elif control_images and task == "text":
        size = natural_size(control_images[0][0], factor)
    height = size[0] if request.height is None else request.height
    width = size[1] if request.width is None else request.width
    if latents is not None and (height, width) != size:
        raise UsageError(f"the latents are of an image of {size[1]}x{size[0]} pixels, not {width}x{height}")
    axes = _axes(bundle)
    for name, side, axis in (("height", height, "h"), ("width", width, "w")):
        allowed = axes[axis]
        of_image = getattr(request, name) is None and latents is None and size != bundle.manifest.default_size
        _check_side(name, side, factor, allowed, of_image=of_image)
    return height, width


def _rounded_size(
    request: Request, task: str, bundle: Bundle, latents: F32 | None, notes: list[str]
) -> tuple[int, int]:
    """Return the request's size, else the bundle's, rounded up as in diffusers.

    diffusers rounds up to a multiple of the square of the VAE's factor, but does not round in image-to-image. There,
    sizes that the UNet cannot run are rounded up.
    """
    unet, factor = bundle.config("unet"), bundle.autoencoder.factor
    assert isinstance(unet, UNetConfig)
    levels = len(unet.down)
    multiple = bundle.family.size_multiple(factor, levels) if task == "image" else bundle.family.rounds_to(factor)
    if latents is not None:
        requested = (latents.shape[2] * factor, latents.shape[3] * factor)
        explicit = (request.height or requested[0], request.width or requested[1])
        if explicit != requested:
            raise UsageError(
                f"the latents are of an image of {requested[1]}x{requested[0]} pixels, not {explicit[1]}x{explicit[0]}"
            )
    else:
        default = bundle.manifest.default_size
        requested = (request.height or default[0], request.width or default[1])
    height, width = (-(-side // multiple) * multiple for side in requested)
    if (height, width) != requested:
        if latents is not None:
            raise UsageError(f"image, as latents, must be of an image whose sides are multiples of {multiple} pixels")
        notes.append(
            f"generated at {width}x{height}, not at {requested[1]}x{requested[0]}: sides are multiples of {multiple} "
            "pixels"
        )
    axes = _axes(bundle)
    for name, side, axis in (("height", height, "h"), ("width", width, "w")):
        _check_side(name, side, factor, axes[axis])
    return height, width


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


def _axes(bundle: Bundle) -> Mapping[str, AxisRange]:
    """Return the ranges of the denoiser's axes; ``h`` and ``w`` are in latent pixels."""
    return next(iter(bundle.component("denoiser").graphs.values())).spec.axes
