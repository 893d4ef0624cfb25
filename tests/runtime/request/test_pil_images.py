"""Image files and PIL images of every mode, depth and orientation, as image, mask and control image."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils import load_image
from PIL import ExifTags, Image, ImageOps
from sdengine.engines.errors import UsageError
from sdengine.runtime.request.input_images import InputImage, load_images, mask_array, natural_size, pixel_array

from ..parity.oracle import their_warnings

ARGUMENTS: list[tuple[str, dict[str, bool]]] = [
    ("image", {}),
    ("mask_image", {"masks": True}),
    ("control_image", {"signed": True}),
]
_EVERY_ARGUMENT = pytest.mark.parametrize(("what", "options"), ARGUMENTS, ids=[name for name, _ in ARGUMENTS])
SIZE = (72, 40)


def read(value: Any, what: str = "image", **options: bool) -> tuple[InputImage, list[str]]:
    notes: list[str] = []
    [picture] = load_images(value, what, notes, **options)
    return picture, notes


def rgba(height: int = 45, width: int = 61, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8))


def in_mode(mode: str) -> Image.Image:
    if mode == "RGBA":
        return rgba()
    if mode == "PA":
        return rgba().convert("RGB").convert("P").convert("PA")
    return rgba().convert("L" if mode.startswith("La") else "RGB").convert("LA" if mode == "La" else mode).convert(mode)


def depth_map(top: int = 65535) -> np.ndarray[Any, Any]:
    """Return a slope [64, 48] from 0 to ``top`` with the mean of a published depth map, 0.497 of the range."""
    slope = np.linspace(0, 1, 64 * 48).reshape(64, 48) ** 1.0122
    return np.asarray((slope * top).round())


def as_theirs(image: Image.Image | list[Image.Image], **options: bool) -> Any:
    """What diffusers' image processor makes of an image: [H, W, C] of 0 to 1."""
    with their_warnings():
        processor = VaeImageProcessor(do_normalize=False, **options)
        return processor.preprocess(image, height=SIZE[0], width=SIZE[1])[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@_EVERY_ARGUMENT
def test_files_are_upright(tmp_path: Path, suffix: str, orientation: int, what: str, options: dict[str, bool]) -> None:
    file = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    rgba(40, 80).convert("RGB").save(file, exif=exif)
    picture, notes = read(str(file), what, **options)
    assert natural_size(picture, 8) == ((40, 80) if orientation < 5 else (80, 40))
    expected = as_theirs(load_image(str(file)), do_convert_rgb=True)
    assert np.array_equal(pixel_array([picture], *SIZE)[0], expected)
    assert not notes
    with Image.open(file) as opened:
        from_object, notes = read(opened, what, **options)
    assert np.array_equal(pixel_array([from_object], *SIZE)[0], expected)
    assert bool(notes) == (orientation > 1)


def test_orientation_in_xmp_and_damaged_exif(tmp_path: Path) -> None:
    rgba(40, 80).convert("RGB").save(tmp_path / "a.jpg", xmp=b'<x tiff:Orientation="6"/>')
    assert natural_size(read(tmp_path / "a.jpg")[0], 8) == (80, 40)
    for i, exif in enumerate(
        (b"Exif\0\0nothing", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0II*\0" + struct.pack("<IH", 8, 99))
    ):
        rgba(40, 80).convert("RGB").save(tmp_path / f"{i}.jpg", exif=exif)
        with their_warnings():
            assert natural_size(read(tmp_path / f"{i}.jpg")[0], 8) == (40, 80)


_MODES = {
    "1": ["png", "tiff", "gif"],
    "L": ["png", "jpg", "webp"],
    "LA": ["png", "tiff"],
    "P": ["png", "gif", "bmp"],
    "RGB": ["png", "tiff", "webp", "bmp"],
    "RGBA": ["png", "tiff", "webp"],
    "CMYK": ["tiff", "jpg"],
    "YCbCr": ["jpg", "tiff"],
}


@pytest.mark.parametrize(("mode", "suffix"), [(mode, suffix) for mode, all_ in _MODES.items() for suffix in all_])
@pytest.mark.parametrize("resized", [True, False])
@_EVERY_ARGUMENT
def test_files_of_every_mode_are_what_they_are_as_rgb(
    tmp_path: Path, mode: str, suffix: str, resized: bool, what: str, options: dict[str, bool]
) -> None:
    file = tmp_path / f"a.{suffix}"
    in_mode(mode).save(file)
    with Image.open(file) as opened:
        try:
            opened.load()
        except OSError as error:
            pytest.skip(f"this Pillow cannot read what it wrote: {error}")
    picture, notes = read(file, what, **options)
    with Image.open(file) as opened:
        expected = load_image(opened)
    size = SIZE if resized else (expected.height, expected.width)
    assert np.array_equal(pixel_array([picture], *size), pixel_array([expected], *size))
    assert np.array_equal(mask_array([picture], *size), mask_array([expected], *size))
    assert bool(notes) == (mode == "RGBA"), "only what is transparent is spoken of"


def test_transparency_in_a_palette_is_spoken_of(tmp_path: Path) -> None:
    rgba().convert("RGB").convert("P").save(tmp_path / "a.png", transparency=bytes(range(256)))
    assert len(read(tmp_path / "a.png")[1]) == 1
    with Image.open(tmp_path / "a.png") as opened:
        picture, notes = read(opened, "mask_image", masks=True)
    assert notes == ["mask_image: its transparency has no effect; it is read as light and dark, as in diffusers"]
    assert pixel_array([picture], *SIZE).shape == (1, *SIZE, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
@pytest.mark.parametrize("resized", [True, False])
def test_images_of_every_mode_are_resized_as_by_diffusers(mode: str, resized: bool) -> None:
    given = in_mode(mode) if resized else in_mode(mode).resize((SIZE[1], SIZE[0]))
    picture, notes = read(given)
    assert np.array_equal(pixel_array([picture], *SIZE)[0], as_theirs(given, do_convert_rgb=True))
    expected = as_theirs(given, do_binarize=True, do_convert_grayscale=True)[:, :, 0]
    assert np.array_equal(mask_array([picture], *SIZE)[0], expected)
    assert bool(notes) == (mode == "RGBA")


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_images_are_those_they_were_made_of(mode: str) -> None:
    given = in_mode("RGBA").convert("LA" if mode == "La" else "RGBA")
    given.putalpha(255)
    assert np.array_equal(pixel_array([read(given.convert(mode))[0]], *SIZE), pixel_array([given], *SIZE))


_DEEP: dict[str, Callable[[], Any]] = {
    "I;16": lambda: Image.fromarray(depth_map().astype(np.uint16)),
    "I;16B": lambda: Image.frombytes("I;16B", (48, 64), depth_map().astype(">u2").tobytes()),
    "I": lambda: Image.fromarray(depth_map().astype(np.int32)),
    "I of 8 bits": lambda: Image.fromarray(depth_map(255).astype(np.int32)),
    "I of 31 bits": lambda: Image.fromarray(depth_map(2**31 - 1).astype(np.int32)),
    "F": lambda: Image.fromarray(depth_map(1000).astype(np.float32) / 1000),
    "F of 8 bits": lambda: Image.fromarray(depth_map(255).astype(np.float32)),
    "F of 16 bits": lambda: Image.fromarray(depth_map().astype(np.float32)),
    "uint8": lambda: depth_map(255).astype(np.uint8),
    "uint16": lambda: depth_map().astype(np.uint16),
    "big-endian": lambda: depth_map().astype(">u2"),
    "uint32": lambda: depth_map(2**32 - 1).astype(np.uint32),
    "uint64": lambda: depth_map(2**32).astype(np.uint64) * np.uint64(2**32 - 1),
    "float64": lambda: depth_map(1000) / 1000,
    "float16": lambda: (depth_map(1000) / 1000).astype(np.float16),
}


@pytest.mark.parametrize("kind", _DEEP)
@pytest.mark.parametrize("size", [(64, 48), (128, 96), (40, 56)])
@_EVERY_ARGUMENT
def test_deep_images_are_scaled_by_their_range(
    kind: str, size: tuple[int, int], what: str, options: dict[str, bool]
) -> None:
    picture, _ = read(_DEEP[kind](), what, **options)
    pixels = pixel_array([picture], *size)
    assert pixels.mean() == pytest.approx(0.497, abs=0.015 if size == (40, 56) else 0.002)
    assert pixels.min() >= 0 and pixels.max() <= 1 and pixels.std() > 0.25
    assert mask_array([picture], *size).mean() == pytest.approx(0.497, abs=0.02)


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("png", np.uint16), ("tiff", np.uint16), ("tiff", np.int32), ("tiff", np.float32)]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_deep_files(tmp_path: Path, suffix: str, dtype: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(depth_map().astype(dtype)).save(tmp_path / f"a.{suffix}", exif=exif)
    picture, notes = read(tmp_path / f"a.{suffix}")
    height, width = natural_size(picture, 8)
    assert (height, width) == ((64, 48) if orientation == 1 else (48, 64))
    expected = depth_map() / 65535 if orientation == 1 else np.rot90(depth_map() / 65535, -1)
    assert np.allclose(pixel_array([picture], height, width)[0, :, :, 1], expected, atol=1e-6)
    assert notes == (
        []
        if dtype == np.uint16
        else [f"image: an image of mode {'I' if dtype == np.int32 else 'F'}, read as values of 0 to 65535"]
    )


def test_images_without_a_range() -> None:
    for values, message in (
        (np.full((4, 4), -1, np.int32), "below 0 or not finite"),
        (np.full((4, 4), np.nan, np.float32), "below 0 or not finite"),
        (np.full((4, 4), 1e6, np.float32), "values up to 1e.06: scale it to 0 to 1"),
    ):
        with pytest.raises(UsageError, match=message):
            read(Image.fromarray(values))


def test_pasting_beside_exif_is_not_turned_twice() -> None:
    upright = rgba(40, 80).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright.info["exif"] = exif.tobytes()
    picture, _ = read(upright)
    assert isinstance(picture, Image.Image)
    assert picture.size == (40, 80)
    assert ImageOps.exif_transpose(picture).size == (40, 80)
    assert read(picture)[0] is picture


def test_the_first_frame_is_used_and_said(tmp_path: Path) -> None:
    first, second = (Image.new("L", (16, 8), grey) for grey in (200, 10))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    picture, notes = read(tmp_path / "a.gif")
    assert pixel_array([picture], 8, 16).mean() == pytest.approx(200 / 255, abs=0.01)
    assert notes == [f"image: {tmp_path / 'a.gif'} has 2 frames; the first is used"]


def test_an_image_that_was_closed_unread(tmp_path: Path) -> None:
    rgba().save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as closed:
        pass
    with pytest.raises(UsageError, match="image: the image cannot be read: its file was closed before it was read"):
        read(closed)
