import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from sdengine.export.demo.training.captions import Scene, scene_of_seed
from sdengine.export.demo.training.read_back import read_back
from sdengine.export.demo.training.scene_images import draw

Pixels = npt.NDArray[np.uint8]

TRAITS = ("background", "colour", "shape", "size")


def exact_share(pictures: list[tuple[Scene, Pixels]]) -> float:
    return np.mean(
        [all(getattr(read_back(pixels), t) == getattr(scene, t) for t in TRAITS) for scene, pixels in pictures]
    )


@pytest.mark.parametrize("size", [(128, 128), (96, 128), (160, 160)])
def test_drawn_pictures_are_read_exactly(size: tuple[int, int]) -> None:
    scenes = [scene_of_seed(seed) for seed in range(120)]
    pictures = [(scene, draw(scene, n, height=size[0], width=size[1])) for n, scene in enumerate(scenes)]
    assert exact_share(pictures) >= 0.99


def test_noise_like_that_of_compression_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    pictures: list[tuple[Scene, Pixels]] = []
    for seed in range(120):
        scene = scene_of_seed(seed)
        fine = rng.normal(0, 5, (128, 128, 3))
        blocks = np.kron(rng.normal(0, 4, (16, 16, 3)), np.ones((8, 8, 1)))
        noisy = draw(scene, seed) + fine + blocks
        pictures.append((scene, noisy.clip(0, 255).astype(np.uint8)))
    assert exact_share(pictures) >= 0.99


def test_another_answer_is_possible() -> None:
    # Every picture is read against the scene of another: were the reader to guess, this would not fall to chance.
    pictures = [(scene_of_seed(seed + 1), draw(scene_of_seed(seed), seed)) for seed in range(120)]
    assert exact_share(pictures) <= 0.05


def test_place_follows_the_object() -> None:
    for seed in range(20):
        scene = scene_of_seed(seed)
        there, moved = read_back(draw(scene, seed)), read_back(draw(scene, seed, crop=(12, 5)))
        assert np.subtract(there.place, moved.place) == pytest.approx((5, 12), abs=0.6)


def test_softness_measures_the_width_of_edges() -> None:
    for seed in range(10):
        scene = scene_of_seed(seed)
        sizes = ((128, 128), (64, 64), (32, 32))
        sharp, soft, softer = (read_back(draw(scene, seed, original_size=size)).softness for size in sizes)
        assert 0.4 < sharp < 1.6
        assert 1.7 * sharp < soft < 0.7 * softer


def test_a_speck_beside_the_object_is_no_part_of_it() -> None:
    scene = scene_of_seed(4)
    pixels = draw(scene, 4).copy()
    clean = read_back(pixels)
    centre = pixels[int(clean.place[1]), int(clean.place[0])]
    pixels[6:10, 6:10] = centre
    assert read_back(pixels).place == clean.place


def test_an_empty_picture_has_no_object() -> None:
    reading = read_back(np.full((128, 128, 3), (35, 75, 205), np.uint8))
    assert (reading.background, reading.shape, reading.area) == ("blue", "", 0.0)


def test_noise_has_no_clear_object() -> None:
    reading = read_back(np.random.default_rng(1).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    assert np.isfinite([*reading.place, reading.area]).all() and 0 <= reading.area <= 128 * 128


def test_only_8_bit_rgb_is_a_picture() -> None:
    with pytest.raises(ValueError, match="height, width, 3"):
        read_back(np.zeros((3, 128, 128), np.uint8))
    with pytest.raises(ValueError, match="float64"):
        read_back(np.zeros((128, 128, 3)))


def test_reading_and_judging_need_no_torch() -> None:
    code = (
        "import sys; from sdengine.export.demo.training import evaluate, read_back, scene_images;"
        "found = {'torch', 'transformers', 'diffusers', 'onnx', 'scipy'} & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
