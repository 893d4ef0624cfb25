"""Pictures, masks and latents that a caller brings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from sdengine.engines.errors import UsageError
from sdengine.runtime.request.input_images import (
    as_latents,
    load_images,
    mask_array,
    natural_size,
    pixel_array,
)

from ..parity.oracle import their_warnings


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
    assert len(load_images(np.zeros(shape, np.float32), "image", [], masks=masks)) == count


def test_tensors_have_their_channels_first() -> None:
    [picture] = load_images(torch.zeros(1, 3, 5, 6), "image", [])
    assert np.asarray(picture).shape == (5, 6, 3)
    assert [np.asarray(p).shape for p in load_images([torch.zeros(3, 5, 6)] * 2, "image", [])] == [(5, 6, 3)] * 2


def test_files(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (255, 0, 0)).save(tmp_path / "a.png")
    [picture] = load_images(str(tmp_path / "a.png"), "image", [])
    assert natural_size(picture, 8) == (16, 24)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="cannot be read as an image: it is of no kind that Pillow knows"):
        load_images(tmp_path / "b.png", "image", [])
    with pytest.raises(UsageError, match=r"image: there is no file .*c\.png"):
        load_images(tmp_path / "c.png", "image", [])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "must be a PIL image, a path or an array, not int"),
        ([], "empty list"),
        (np.full((4, 4, 3), 2.0, np.float32), "outside 0 to 1"),
        (np.full((4, 4, 3), np.nan, np.float32), "outside 0 to 1"),
        ("https://example.com/a.png", "is not fetched; give a file"),
        (np.zeros((4,), np.float32), "2 to 4 axes"),
        (np.full((4, 4, 3), -2.0, np.float32), "outside 0 to 1"),
        (np.full((4, 4, 3), 1e300), "outside 0 to 1"),
        (np.zeros((4, 0, 3), np.float32), "is empty"),
        (np.zeros((4, 4, 2), np.float32), "there can be 1, 3 or 4"),
        (np.zeros((4, 4), np.int64), "floats of 0 to 1, or unsigned integers"),
    ],
)
def test_bad_pictures(value: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_images(value, "image", [])


def test_latents_are_told_from_pixels() -> None:
    latents = torch.zeros(2, 4, 9, 13)
    assert as_latents(latents, 4) is not None
    both = as_latents([latents[0], latents[1]], 4)
    assert both is not None and both.shape == (2, 4, 9, 13)
    pixels: list[Any] = [torch.zeros(2, 3, 9, 13), np.zeros((2, 4, 9, 3), np.float32), Image.new("RGB", (9, 9)), []]
    for value in pixels:
        assert as_latents(value, 4) is None


@pytest.mark.parametrize(("given", "size"), [((8, 8), (8, 8)), ((16, 24), (8, 8)), ((4, 6), (24, 16))])
def test_masks_of_any_size_are_binary_and_of_the_drawn_size(given: tuple[int, int], size: tuple[int, int]) -> None:
    grey = np.tile(np.linspace(0, 1, given[1], dtype=np.float32), (given[0], 1))
    theirs = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
    for mask in (Image.fromarray((grey * 255).astype(np.uint8)), grey):
        [found] = mask_array(load_images(mask, "mask_image", [], masks=True), *size)
        expected = theirs.preprocess(mask if isinstance(mask, Image.Image) else grey[None], *size)[0, 0]
        assert np.array_equal(found, expected)
        assert set(np.unique(found)) == {0, 1}


def test_control_images_keep_their_masked_pixels() -> None:
    hint = np.random.default_rng(0).random((1, 24, 16, 3), np.float32)
    hint[:, 3:19, 2:17] = -1
    theirs = VaeImageProcessor(do_convert_rgb=True, do_normalize=False)
    for value in (hint, torch.from_numpy(hint).permute(0, 3, 1, 2)):
        for size in ((24, 16), (8, 32)):
            notes: list[str] = []
            found = pixel_array(load_images(value, "control_image", notes, signed=True), *size)
            expected = theirs.preprocess(value, *size).permute(0, 2, 3, 1).numpy()
            assert np.array_equal(found, expected)
            assert found.min() == -1 and not notes
    grey = hint[0, :, :, 0]
    as_image = load_images(Image.fromarray(grey), "control_image", [], signed=True)
    assert np.array_equal(pixel_array(as_image, 24, 16)[0], np.repeat(grey[:, :, None], 3, axis=-1))


def test_images_of_minus_one_to_one_are_read_as_by_diffusers() -> None:
    values = np.random.default_rng(0).random((1, 16, 24, 3), np.float32) * 2 - 1
    with their_warnings():
        expected = VaeImageProcessor().preprocess(values, 16, 24).permute(0, 2, 3, 1).numpy()
    notes: list[str] = []
    found = pixel_array(load_images(values, "image", notes), 16, 24)
    assert np.allclose(found * 2 - 1, expected, atol=1e-6)
    assert notes == ["image: an array with values below 0 is read as one of -1 to 1, as in diffusers"]
    with pytest.raises(UsageError, match="mask_image holds values outside 0 to 1"):
        load_images(values, "mask_image", [], masks=True)


@pytest.mark.parametrize(
    ("mask", "count"),
    [
        (torch.zeros(2, 8, 6), 2),
        (torch.zeros(1, 8, 6), 1),
        (torch.zeros(3, 1, 8, 6), 3),
        (torch.zeros(8, 6), 1),
        (np.zeros((2, 8, 6), np.uint8), 2),
        (np.zeros((8, 6, 3), np.uint8), 1),
        (np.zeros((2, 8, 6, 1), bool), 2),
    ],
)
def test_masks_in_arrays_and_tensors(mask: Any, count: int) -> None:
    assert mask_array(load_images(mask, "mask_image", [], masks=True), 8, 6).shape == (count, 8, 6)


def test_truth_values_are_a_mask() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5] = True
    assert np.array_equal(mask_array(load_images(mask, "mask_image", [], masks=True), 8, 8)[0], mask)
