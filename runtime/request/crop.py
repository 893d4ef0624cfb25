"""Inpainting in a part of the image: ``padding_mask_crop``.

The region around the mask is cut out, generated at the full size and pasted back, so that a small masked part gets full
detail. Regions, resampling and pasting are those of diffusers' ``VaeImageProcessor``, pixel for pixel.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from ...engines.errors import UsageError

__all__ = ["Crop", "crop_around", "overlaid"]

_LANCZOS = Image.Resampling.LANCZOS


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A region of an image.

    Attributes:
        image: the whole image.
        mask: as large as the image; what is not black is repainted.
        region: left, top, right and bottom, in pixels.

    """

    image: Image.Image
    mask: Image.Image
    region: tuple[int, int, int, int]

    def cut(self, image: Image.Image, height: int, width: int) -> Image.Image:
        """Return the region of an image, resized to ``height`` x ``width``, as RGB.

        If the region has other proportions, its edges are repeated outwards.
        """
        part = image.crop(self.region)
        by_width = width / height < part.width / part.height
        inner = (width, part.height * width // part.width)
        if not by_width:
            inner = (part.width * height // part.height, height)
        scaled = part.resize(inner, _LANCZOS)
        canvas = Image.new("RGB", (width, height))
        left, top = width // 2 - inner[0] // 2, height // 2 - inner[1] // 2
        canvas.paste(scaled, (left, top))
        # an empty box at the border makes resize continue the border
        if by_width and top > 0:
            for edge, place in ((0, 0), (scaled.height, top + scaled.height)):
                canvas.paste(scaled.resize((width, top), box=(0, edge, width, edge)), (0, place))
        elif not by_width and left > 0:
            for edge, place in ((0, 0), (scaled.width, left + scaled.width)):
                canvas.paste(scaled.resize((left, height), box=(edge, 0, edge, height)), (place, 0))
        return canvas

    def paste(self, generated: Image.Image) -> Image.Image:
        """Return the whole image with the generated part pasted in; where the mask is grey, the two are mixed."""
        left, top, right, bottom = self.region
        canvas = Image.new("RGB", self.image.size)
        canvas.paste(_filling(generated, right - left, bottom - top), (left, top))
        return overlaid(canvas, self.image, self.mask)


def overlaid(image: Image.Image, original: Image.Image, mask: Image.Image) -> Image.Image:
    """Put the original over an image where the mask is black, and mix them through the mask's greys; all of one size.

    Raises:
        UsageError: their sizes differ.

    """
    for other, name in ((image, "image"), (mask, "mask")):
        if other.size != original.size:
            sizes = f"{other.width}x{other.height} pixels, the original image {original.width}x{original.height}"
            raise UsageError(f"the {name} has {sizes}: make them equal")
    # premultiplied, as colours are mixed
    over = Image.new("RGBa", original.size)
    over.paste(original.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask.convert("L")))
    mixed = image.convert("RGBA")
    mixed.alpha_composite(over.convert("RGBA"))
    return mixed.convert("RGB")


def crop_around(image: Image.Image, mask: Image.Image, *, padding: int, height: int, width: int) -> Crop:
    """Return the region around a mask, in the proportions of ``height`` and ``width`` as far as the image allows.

    Args:
        image: the whole image.
        mask: as large as the image.
        padding: pixels that are added on each side of the masked part.
        height: of the generated image.
        width: of the generated image.

    Raises:
        UsageError: the mask has another size, or is black everywhere.

    """
    if mask.size != image.size:
        raise UsageError(
            f"mask_image is {mask.width}x{mask.height} pixels, the image {image.width}x{image.height}: make them equal"
        )
    box = Image.fromarray((np.asarray(mask.convert("L")) > 0).astype(np.uint8)).getbbox()
    if box is None:
        raise UsageError("mask_image is black everywhere: nothing would be repainted")
    left, right = max(box[0] - padding, 0), min(box[2] + padding, mask.width)
    top, bottom = max(box[1] - padding, 0), min(box[3] + padding, mask.height)
    proportion = width / height
    if (right - left) / (bottom - top) > proportion:
        top, bottom = _widened(top, bottom, (right - left) / proportion, mask.height)
    else:
        left, right = _widened(left, right, (bottom - top) * proportion, mask.width)
    return Crop(image=image, mask=mask, region=(left, top, right, bottom))


def _widened(first: int, last: int, length: float, limit: int) -> tuple[int, int]:
    """Widen a span around its middle to a length; move it, and then shorten it, to lie within 0 to ``limit``."""
    missing = int(length - (last - first))
    first -= missing // 2
    last += missing - missing // 2
    beyond = max(last - limit, 0)
    first, last = first - beyond, last - beyond
    if first < 0:
        first, last = 0, last - first
    return first, min(last, limit)


def _filling(generated: Image.Image, width: int, height: int) -> Image.Image:
    """Resize an image to cover ``width`` x ``height``, and cut off what is outside."""
    if width / height > generated.width / generated.height:
        outer = (width, generated.height * width // generated.width)
    else:
        outer = (generated.width * height // generated.height, height)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(generated.resize(outer, _LANCZOS), (width // 2 - outer[0] // 2, height // 2 - outer[1] // 2))
    return canvas
