"""Pictures of a body -> the images and the mask of a request."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from .body_fields import PICTURES
from .field_values import as_text, invalid
from .limits import Limits
from .uploads import Upload, has_alpha, mask_from_alpha, opaque, opened, upload_from_text

__all__ = ["add_images"]

_PICTURES_MOST = 16


def add_images(fields: Mapping[str, Any], settings: dict[str, Any], limits: Limits, warnings: list[str]) -> None:
    """Decode the pictures; transparency becomes a mask."""

    def pictures(name: str) -> list[Image.Image]:
        sent = fields[name] if isinstance(fields[name], list) else [fields[name]]
        uploads = [one if isinstance(one, Upload) else upload_from_text(as_text(name, one), name) for one in sent]
        if not uploads or len(uploads) > _PICTURES_MOST:
            raise invalid(name, f"{name}: {len(uploads)} pictures; there may be 1 to {_PICTURES_MOST}")
        return [opened(upload, name, limits.image_pixels, warnings) for upload in uploads]

    if "mask" in fields and "mask_image" in fields:
        raise invalid("mask", "mask and mask_image were both given: send one of them")
    for name in PICTURES:
        if name in fields:
            several = pictures(name)
            settings[name] = several[0] if len(several) == 1 else several
    image = settings.get("image")
    if isinstance(image, list):
        raise invalid("image", f"image: {len(image)} pictures; these models start from one")
    if "mask" in fields:
        (mask, *more), masked = pictures("mask"), settings.get("image")
        if more or not has_alpha(mask):
            message = "mask needs an alpha channel, 0 where to repaint; send mask_image if it is white there instead"
            raise invalid("mask", message)
        if masked is not None and masked.size != mask.size:
            message = (
                f"mask has {mask.width}x{mask.height} pixels and image {masked.width}x{masked.height}: must be equal"
            )
            raise invalid("mask", message)
        settings["mask_image"] = mask_from_alpha(mask) or Image.new("L", mask.size)
        settings["image"] = masked if masked is None or not has_alpha(masked) else opaque(masked)
    elif image is not None and "mask_image" not in fields and (own := mask_from_alpha(image)) is not None:
        settings["mask_image"], settings["image"] = own, opaque(image)
        warnings.append("image: repainted where it is transparent, as no mask was sent")
    if settings.get("image") is None:
        settings.pop("image", None)
