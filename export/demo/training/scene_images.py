"""Draws the scenes of the demo data set, deterministically, as SDXL's training would have seen them.

A picture is drawn on a canvas, *resized* through its original size and *cropped*; both are told to the network as
SDXL's micro-conditioning (Podell et al. 2023, section 2.2), so that asking for them acts on what is drawn:

- ``crop`` (top, left) moves the object up and left by as many pixels, for what was cropped away lay there;
- an ``original_size`` below the picture's size makes it coarse, for it was enlarged from so few pixels.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .captions import COLOURS, SIZES, Scene, caption, scene_of_seed
from .shapes import OUTLINES

__all__ = ["Example", "draw", "example_of_seed", "scale_of"]

_SUPERSAMPLING = 3
_JITTER = 7.0  # the object's centre, in pixels of a 128-pixel picture either way
_COARSE_SHARE = 0.45  # of the examples are enlarged from a small original
_COARSEST = 4.7  # octaves below the picture's size; blur below a latent's 8 pixels is never learned, so go far beyond
_CROPPED_SHARE = 0.5
_LARGEST_CROP = 0.34  # of the shorter side

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One example of the data set: the picture [height, width, 3], its scene and caption, and what SDXL is told."""

    scene: Scene
    caption: str
    pixels: Pixels
    original_size: tuple[int, int]
    crop: tuple[int, int]

    @property
    def time_ids(self) -> tuple[int, int, int, int, int, int]:
        """SDXL's six numbers: original height and width, crop top and left, target height and width."""
        return (*self.original_size, *self.crop, *self.pixels.shape[:2])


def scale_of(height: int, width: int) -> float:
    """Return how much larger things are drawn than in a 128-pixel picture: by the shorter side."""
    return min(height, width) / 128


def draw(
    scene: Scene,
    seed: int,
    *,
    height: int = 128,
    width: int = 128,
    crop: tuple[int, int] = (0, 0),
    original_size: tuple[int, int] | None = None,
) -> Pixels:
    """Draw a scene as [height, width, 3]; the seed chooses the exact place, radius and colours.

    Args:
        scene: what to draw.
        seed: the same seed draws the same picture.
        height: in pixels.
        width: in pixels.
        crop: how many pixels lie cropped away above and to the left (the object's home is the uncropped centre).
        original_size: height and width the picture is enlarged from; at or above its size it stays sharp.

    """
    rng = random.Random(f"picture {seed}")
    scale = scale_of(height, width)
    x = width / 2 - crop[1] + scale * rng.uniform(-_JITTER, _JITTER)
    y = height / 2 - crop[0] + scale * rng.uniform(-_JITTER, _JITTER)
    radius = scale * SIZES[scene.size] * rng.uniform(0.93, 1.07)
    colour, background = (_near(COLOURS[name], rng) for name in (scene.colour, scene.background))
    canvas = Image.new("RGB", (width, height), background)
    canvas.paste(colour, (0, 0), _mask(scene.shape, x, y, radius, (width, height)))
    if original_size is not None and (original_size[0] < height or original_size[1] < width):
        small = (min(original_size[1], width), min(original_size[0], height))
        canvas = canvas.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(canvas, dtype=np.uint8)


def _near(colour: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    """Return a colour at most 8 steps away in each channel."""
    red, green, blue = (min(255, max(0, round(value + rng.uniform(-8, 8)))) for value in colour)
    return red, green, blue


def _mask(shape: str, x: float, y: float, radius: float, size: tuple[int, int]) -> Image.Image:
    """Return the shape's coverage as an 8-bit picture, its edges smooth over a pixel."""
    n = _SUPERSAMPLING
    mask = Image.new("L", (size[0] * n, size[1] * n), 0)
    pen = ImageDraw.Draw(mask)
    for depth, polygon in enumerate(OUTLINES[shape]):  # the second outline is a hole in the first
        pen.polygon([(n * (x + radius * px), n * (y + radius * py)) for px, py in polygon], fill=0 if depth else 255)
    return mask.reduce(n)


def example_of_seed(
    seed: int, *, height: int = 128, width: int = 128, fresh: bool = False, coarse_share: float = _COARSE_SHARE
) -> Example:
    """Return one example of the data set.

    Args:
        seed: chooses everything about it.
        height: in pixels.
        width: in pixels.
        fresh: take the scene from those that are held out of training.
        coarse_share: how often the picture is enlarged from a small original.

    """
    rng = random.Random(f"example {seed}")
    scene = scene_of_seed(seed, fresh=fresh)
    crop = _crop(rng, min(height, width))
    original_size = _original_size(rng, height, width, coarse_share)
    pixels = draw(scene, seed, height=height, width=width, crop=crop, original_size=original_size)
    return Example(scene=scene, caption=caption(scene, rng), pixels=pixels, original_size=original_size, crop=crop)


def _crop(rng: random.Random, side: int) -> tuple[int, int]:
    """Half of the pictures are cropped, along one axis more often than along both."""
    if rng.random() >= _CROPPED_SHARE:
        return 0, 0
    amounts = [round(rng.uniform(0, _LARGEST_CROP * side)) for _ in range(2)]
    axes = rng.choice(((1, 0), (0, 1), (1, 1)))
    return amounts[0] * axes[0], amounts[1] * axes[1]


def _original_size(rng: random.Random, height: int, width: int, coarse_share: float) -> tuple[int, int]:
    """Coarse originals from 1/4 of the size down, evenly by octave; of the others half are exactly the size."""
    coarse, fine = 1 / 2 ** rng.uniform(2.0, _COARSEST), rng.choice((1.0, rng.uniform(1.0, 2.0)))
    factor = coarse if rng.random() < coarse_share else fine
    return max(4, round(height * factor)), max(4, round(width * factor))


def stacked(examples: Iterable[Example]) -> Pixels:
    """Return the pictures of equally large examples as one array [n, height, width, 3]."""
    return np.stack([example.pixels for example in examples])
