"""Regions, cuts and pasting of ``padding_mask_crop``, pixel for pixel those of diffusers."""

import numpy as np
import pytest
from diffusers.image_processor import VaeImageProcessor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sdengine.engines.errors import UsageError
from sdengine.runtime.request.crop import crop_around

SIDE = st.integers(20, 150)


def _masked(seed: int, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    left, right = sorted(rng.integers(0, width, 2))
    top, bottom = sorted(rng.integers(0, height, 2))
    hole = mask[top : bottom + 1, left : right + 1]
    hole[:] = rng.integers(1, 256, hole.shape)
    return Image.fromarray(pixels), Image.fromarray(mask)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), SIDE, SIDE, st.integers(4, 20), st.integers(4, 20), st.integers(0, 20))
def test_as_diffusers(seed: int, wide: int, high: int, w: int, h: int, padding: int) -> None:
    picture, mask = _masked(seed, wide, high)
    width, height = 8 * w, 8 * h
    theirs = VaeImageProcessor()
    region = theirs.get_crop_region(mask, width, height, pad=padding)
    crop = crop_around(picture, mask, padding=padding, height=height, width=width)
    assert crop.region == tuple(region)
    for whole in (picture, mask):
        expected = theirs.resize(whole.crop(region), height, width, resize_mode="fill")
        assert np.array_equal(expected, np.asarray(crop.cut(whole, height, width)))
    drawn = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    assert np.array_equal(theirs.apply_overlay(mask, picture, drawn, region), np.asarray(crop.paste(drawn)))


def test_black_mask() -> None:
    black = Image.new("L", (40, 30))
    with pytest.raises(UsageError, match="black everywhere"):
        crop_around(black.convert("RGB"), black, padding=4, height=64, width=64)


def test_mask_of_another_size() -> None:
    with pytest.raises(UsageError, match="mask_image is 41x30 pixels, the image 40x30"):
        crop_around(Image.new("RGB", (40, 30)), Image.new("L", (41, 30)), padding=4, height=64, width=64)
