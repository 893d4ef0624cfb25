"""How pictures that clients send are read: the right way up, with the mask over the right pixels."""

import io
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sdengine.engines.errors import UsageError
from sdengine.runtime.serve.api_error import ApiError
from sdengine.runtime.serve.api_request import api_request_from
from sdengine.runtime.serve.limits import Limits
from sdengine.runtime.serve.uploads import Upload

SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6  # turned by a quarter


def file_of(image: Image.Image, **options: Any) -> Upload:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return Upload(stream.getvalue())


def asked(**fields: Any) -> tuple[dict[str, Any], str]:
    """Return the settings that a body comes to, and its warnings; nothing is printed beside them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = api_request_from({"prompt": "a", **fields}, Limits())
    return one.settings, " ".join(one.warnings)


def half_open(mode: str = "RGBA") -> Image.Image:
    """24x16, red; its left half is transparent."""
    image = Image.new(mode, (24, 16), (255, 0, 0, 255))
    image.paste((0, 255, 0, 0), (0, 0, 12, 16))
    return image


def test_a_transparent_image_is_turned_with_its_mask() -> None:
    settings, notes = asked(image=file_of(half_open(), exif=SIDEWAYS))
    assert settings["image"].size == settings["mask_image"].size == (16, 24)
    mask = np.asarray(settings["mask_image"])
    assert mask[:12].min() == 255 and mask[12:].max() == 0  # its left is above now
    assert settings["image"].getpixel((8, 20)) == (255, 0, 0) and "turned upright" in notes


def test_an_image_that_is_turned_needs_a_mask_of_that_size() -> None:
    sideways = file_of(half_open(), exif=SIDEWAYS)
    with pytest.raises(ApiError, match="mask has 24x16 pixels and image 16x24"):
        asked(image=sideways, mask=file_of(half_open()))
    settings, _ = asked(image=sideways, mask=file_of(half_open(), exif=SIDEWAYS))
    assert settings["image"].size == settings["mask_image"].size == (16, 24)


def test_a_deep_grey_image_keeps_its_values_beside_a_mask() -> None:
    grey = Image.fromarray(np.full((16, 24), 40_000, np.uint16))
    settings, _ = asked(image=file_of(grey), mask=file_of(half_open()))
    alone, _ = asked(image=file_of(grey))
    assert np.array_equal(np.asarray(settings["image"]), np.asarray(alone["image"]))
    assert np.asarray(settings["image"], np.float64).max() > 0.5


@pytest.mark.parametrize("kind", ["RGB with a colour", "palette with one", "palette with several", "grey with one"])
def test_transparency_beside_the_pixels(kind: str) -> None:
    """Pillow keeps it outside the pixels; it is said once what is made of it."""
    if kind.startswith("RGB"):
        image = Image.new("RGB", (24, 16), (1, 2, 3))
        image.paste((255, 0, 0), (12, 0, 24, 16))
        upload = file_of(image, transparency=(1, 2, 3))
    elif kind.startswith("grey"):
        image = Image.new("L", (24, 16), 7)
        image.paste(200, (12, 0, 24, 16))
        upload = file_of(image, transparency=7)
    else:
        image = Image.new("P", (24, 16), 0)
        image.putpalette([0, 255, 0, 255, 0, 0])
        image.paste(1, (12, 0, 24, 16))
        upload = file_of(image, transparency=b"\x00\xff" if "several" in kind else 0)
    settings, notes = asked(image=upload)
    mask = np.asarray(settings["mask_image"])
    assert mask[:, :12].min() == 255 and mask[:, 12:].max() == 0
    assert notes == "image: repainted where it is transparent, as no mask was sent"
    assert (settings["image"].mode, settings["image"].info.get("transparency")) == ("RGB", None)


def test_what_is_no_picture_is_called_what_it_is() -> None:
    with pytest.raises(UsageError, match="image is an empty file"):
        asked(image=Upload(b""))
    large = Image.new("1", (20_000, 20_000))
    with pytest.raises(UsageError, match="too many pixels; 16777216 are the most"):
        asked(image=file_of(large))
