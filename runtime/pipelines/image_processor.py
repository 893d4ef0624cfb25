"""``pipe.image_processor`` and ``pipe.mask_processor``: what programs do with images before and after a call."""

from typing import Any

from PIL import Image, ImageFilter

from ...engines.errors import nearest
from ..request.crop import Crop, overlaid
from .parts import UnknownAttributeError

__all__ = ["ImageProcessor"]


class ImageProcessor:
    """Blurs masks, and puts the parts of an image that were not to be repainted back over it, as diffusers' does."""

    @staticmethod
    def blur(image: Image.Image, blur_factor: int = 4) -> Image.Image:
        """Blur a mask, so that what is repainted blends into the rest.

        Args:
            image: the mask.
            blur_factor: radius of the Gaussian, in pixels.

        """
        return image.filter(ImageFilter.GaussianBlur(blur_factor))

    @staticmethod
    def apply_overlay(
        mask: Image.Image,
        init_image: Image.Image,
        image: Image.Image,
        crop_coords: tuple[int, int, int, int] | None = None,
    ) -> Image.Image:
        """Put an image back over what was made of it, where its mask is black.

        Args:
            mask: white was repainted.
            init_image: the image before.
            image: the image after; of the same size, or with ``crop_coords`` of any.
            crop_coords: left, top, right and bottom of the region that ``image`` is of.

        """
        if crop_coords is None:
            return overlaid(image, init_image, mask)
        return Crop(image=init_image, mask=mask, region=crop_coords).paste(image)

    def __getattr__(self, name: str) -> Any:
        raise UnknownAttributeError(
            f"the image processor has no {name!r} here{nearest(name, ['blur', 'apply_overlay'])}; a call takes images "
            "as they are, and output_type says what it gives"
        )
