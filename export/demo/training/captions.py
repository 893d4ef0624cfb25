"""What the demo checkpoint can be asked for: scenes of one object, and the sentences that describe them.

This module imports nothing but the standard library, so that tests and benchmarks can name scenes anywhere.
"""

import hashlib
import itertools
import random
from dataclasses import dataclass

from ....engines.errors import UsageError, nearest

__all__ = ["COLOURS", "SHAPES", "SIZES", "Scene", "all_scenes", "caption", "held_out", "plain_caption", "scene_of_seed"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (245, 130, 30),
    "yellow": (250, 222, 50),
    "green": (45, 150, 65),
    "cyan": (80, 205, 220),
    "blue": (35, 75, 205),
    "purple": (130, 50, 165),
    "pink": (250, 150, 195),
    "white": (245, 245, 245),
    "black": (22, 22, 24),
}
"""Colour name -> sRGB, for objects and backgrounds alike; no two lie closer than 88 in RGB."""

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")

SIZES: dict[str, float] = {"small": 18.0, "medium": 27.0, "large": 40.0}
"""Size name -> radius of the circle around the object, in pixels of a picture whose shorter side is 128."""

_HELD_OUT_SHARE = 1 / 8
_TEMPLATES = (
    "a {object} on a {background} background",
    "a {object} on a {background} background",
    "{object}, {background} background",
    "a {object} on {background}",
    "a picture of a {object} on a {background} background",
    "a drawing of a {object} in front of a {background} background",
    "{background} background with a {object}",
)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One object in front of a plain background. ``medium`` is the size that a caption may leave out."""

    colour: str
    shape: str
    size: str
    background: str

    def __post_init__(self) -> None:
        for value, known, what in (
            (self.colour, COLOURS, "colour"),
            (self.background, COLOURS, "background"),
            (self.shape, SHAPES, "shape"),
            (self.size, SIZES, "size"),
        ):
            if value not in known:
                raise UsageError(f"no {what} {value!r}{nearest(value, known)} (known: {', '.join(known)})")
        if self.colour == self.background:
            raise UsageError(f"a {self.colour} object cannot be seen on {self.background}: choose two colours")


def all_scenes() -> list[Scene]:
    """Return every scene, in a fixed order: 10 colours x 9 other backgrounds x 6 shapes x 3 sizes = 1620."""
    return [
        Scene(colour=colour, shape=shape, size=size, background=background)
        for colour, shape, size, background in itertools.product(COLOURS, SHAPES, SIZES, COLOURS)
        if colour != background
    ]


def held_out(scene: Scene) -> bool:
    """Tell whether a scene is kept out of training: one in eight, chosen by the SHA-256 of its four words.

    Every single word is trained in many other combinations; only this combination is new to the network.
    """
    words = " ".join((scene.size, scene.colour, scene.shape, scene.background))
    digest = hashlib.sha256(words.encode()).digest()
    return int.from_bytes(digest[:8], "big") < _HELD_OUT_SHARE * 2**64


def plain_caption(scene: Scene) -> str:
    """Return the one sentence that the evaluation asks with, ``a large red star on a blue background``."""
    return _fill(_TEMPLATES[0], scene, name_medium=False)


def caption(scene: Scene, rng: random.Random) -> str:
    """Return one of the sentences that describe the scene, as training sees them."""
    return _fill(rng.choice(_TEMPLATES), scene, name_medium=rng.random() < 0.25)


def _fill(template: str, scene: Scene, *, name_medium: bool) -> str:
    words = [scene.colour, scene.shape]
    if scene.size != "medium" or name_medium:
        words.insert(0, scene.size)
    sentence = template.format(object=" ".join(words), background=scene.background)
    return sentence.replace("a orange", "an orange")


def scene_of_seed(seed: int, *, fresh: bool = False) -> Scene:
    """Return a random scene: one of those trained on, or with ``fresh`` one of those held out."""
    rng = random.Random(f"scene {seed}")
    while True:
        colour, background = rng.sample(list(COLOURS), 2)
        scene = Scene(colour=colour, shape=rng.choice(SHAPES), size=rng.choice(list(SIZES)), background=background)
        if held_out(scene) == fresh:
            return scene
