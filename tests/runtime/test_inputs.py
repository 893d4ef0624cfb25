"""Pictures, masks and latents that a caller brings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from sdengine.engines.errors import UsageError
from sdengine.runtime.inputs import as_latents, load_pictures, mask_array, natural_size, pixel_array


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (72, 104), (40, 200)])
@pytest.mark.parametrize("given", [(8, 8), (61, 83), (100, 31), (36, 52)])
def test_arrays_are_resized_as_by_torch(given: tuple[int, int], size: tuple[int, int]) -> None:
    array = np.random.default_rng(0).random((*given, 3), np.float32)
    expected = torch.nn.functional.interpolate(torch.from_numpy(array).permute(2, 0, 1)[None], size=size)[0]
    assert np.array_equal(pixel_array([array], *size)[0], expected.permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("shape", "masks", "count"),
    [((5, 6), False, 1), ((5, 6, 3), False, 1), ((2, 5, 6, 3), False, 2), ((4, 5, 6), True, 4), ((5, 6, 1), True, 1)],
)
def test_axes_of_arrays(shape: tuple[int, ...], masks: bool, count: int) -> None:
    assert len(load_pictures(np.zeros(shape, np.float32), "image", masks=masks)) == count


def test_tensors_have_their_channels_first() -> None:
    [picture] = load_pictures(torch.zeros(1, 3, 5, 6), "image")
    assert np.asarray(picture).shape == (5, 6, 3)
    assert [np.asarray(p).shape for p in load_pictures([torch.zeros(3, 5, 6)] * 2, "image")] == [(5, 6, 3)] * 2


def test_files(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "a.png")
    [picture] = load_pictures(str(tmp_path / "a.png"), "image")
    assert natural_size(picture, 8) == (16, 24)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        load_pictures(tmp_path / "b.png", "image")
    with pytest.raises(UsageError, match=r"image: there is no file .*c\.png"):
        load_pictures(tmp_path / "c.png", "image")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "must be a PIL image, a path or an array, not int"),
        ([], "empty list"),
        (np.full((4, 4, 3), 2.0, np.float32), "outside 0 to 1"),
        (np.full((4, 4, 3), np.nan, np.float32), "outside 0 to 1"),
        (np.zeros((4,), np.float32), "2 to 4 axes"),
        (np.zeros((4, 4), np.int64), "floats of 0 to 1 or uint8"),
    ],
)
def test_bad_pictures(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_pictures(value, "image")


def test_latents_are_told_from_pixels() -> None:
    latents = torch.zeros(2, 4, 9, 13)
    assert as_latents(latents, 4) is not None
    both = as_latents([latents[0], latents[1]], 4)
    assert both is not None and both.shape == (2, 4, 9, 13)
    pixels: list[Any] = [torch.zeros(2, 3, 9, 13), np.zeros((2, 4, 9, 3), np.float32), Image.new("RGB", (9, 9)), []]
    for value in pixels:
        assert as_latents(value, 4) is None


def test_masks_are_binary_and_of_the_pictures_size() -> None:
    grey = Image.fromarray(np.tile(np.array([0, 127, 128, 255], np.uint8), (4, 1)))
    [mask] = mask_array([grey], [np.zeros((4, 4), np.float32)], 4, 4)
    assert mask[0].tolist() == [0, 0, 1, 1]
    with pytest.raises(UsageError, match="mask_image is 4x4 pixels, the image 5x4"):
        mask_array([grey], [np.zeros((4, 5), np.float32)], 4, 4)


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA"])
def test_every_kind_of_picture_is_resized_as_by_diffusers(mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (45, 61, 4), dtype=np.uint8)
    given = Image.fromarray(pixels).convert("RGB").convert(mode) if mode != "RGBA" else Image.fromarray(pixels)
    pictures = VaeImageProcessor(do_convert_rgb=True, do_normalize=False)
    expected = pictures.preprocess(given, height=72, width=40)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixel_array([given], 72, 40)[0], expected)
    masks = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    assert np.array_equal(mask_array([given], [given], 72, 40)[0], masks.preprocess(given, height=72, width=40)[0, 0])
