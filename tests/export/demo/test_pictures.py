import hashlib

import numpy as np
import pytest
from sdengine.export.demo.training.captions import Scene, held_out
from sdengine.export.demo.training.scene_images import draw, example_of_seed

SCENE = Scene(colour="red", shape="square", size="medium", background="white")


def test_a_seed_draws_the_same_picture_again() -> None:
    first, again, other = (example_of_seed(seed) for seed in (5, 5, 6))
    assert np.array_equal(first.pixels, again.pixels)
    assert (first.caption, first.time_ids) == (again.caption, again.time_ids)
    assert not np.array_equal(first.pixels, other.pixels)


def test_pictures_of_this_seed_are_pinned() -> None:
    # Counts instead of a hash of the pixels: resampling may differ in the last bit between Pillow's versions.
    pixels = draw(SCENE, 1).astype(int)
    red = (np.abs(pixels - (215, 35, 40)).sum(axis=2) < 60).sum()
    assert red == pytest.approx((27 * 1.1 * 2**0.5) ** 2, rel=0.15)


def test_a_crop_moves_the_object_by_as_much() -> None:
    there, moved = draw(SCENE, 1).astype(int), draw(SCENE, 1, crop=(10, 20)).astype(int)
    assert np.array_equal(there[10:, 20:], moved[:-10, :-20])


def test_a_small_original_is_enlarged() -> None:
    sharp, coarse = draw(SCENE, 1).astype(int), draw(SCENE, 1, original_size=(16, 16)).astype(int)
    assert np.abs(np.diff(coarse, axis=1)).max() < 0.5 * np.abs(np.diff(sharp, axis=1)).max()
    assert np.array_equal(draw(SCENE, 1, original_size=(256, 256)), sharp)


@pytest.mark.parametrize("size", [(96, 128), (160, 128)])
def test_an_example_is_told_its_sizes(size: tuple[int, int]) -> None:
    example = example_of_seed(3, height=size[0], width=size[1])
    assert example.pixels.shape == (*size, 3)
    assert example.pixels.dtype == np.uint8
    assert example.time_ids[4:] == size


def test_the_data_set_has_enough_of_everything_and_nothing_held_out() -> None:
    examples = [example_of_seed(seed) for seed in range(300)]
    assert not any(held_out(example.scene) for example in examples)
    coarse = np.mean([example.original_size[0] < 100 for example in examples])
    cropped = np.mean([max(example.crop) > 0 for example in examples])
    assert 0.3 < coarse < 0.5
    assert 0.4 < cropped < 0.6
    digests = {hashlib.sha256(example.pixels.tobytes()).hexdigest() for example in examples}
    assert len(digests) == 300
