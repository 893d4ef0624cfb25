"""Judges whoever draws: asks for scenes that nobody was trained on and reads the pictures back.

The drawer is a callable, so the same figures can be had for any engine, precision or solver, for diffusers, and
for the program that drew the training data. Nothing here imports torch.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .captions import Scene, all_scenes, held_out, plain_caption
from .read_back import Reading, read_back

__all__ = ["Draw", "Figures", "evaluate", "fresh_scenes", "table"]

CROP = 24
"""Pixels that the evaluation asks to be cropped away, in turn at the top and at the left."""

COARSE = 10
"""The small ``original_size`` that the evaluation asks for, in pixels each way."""


class Draw(Protocol):
    """Draws 128 x 128 pictures; the two keywords are SDXL's, in pixels, (height, width) and (top, left)."""

    def __call__(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        original_size: tuple[int, int] = (128, 128),
        crops_coords_top_left: tuple[int, int] = (0, 0),
    ) -> Sequence[npt.NDArray[np.uint8]]:
        """Return one [128, 128, 3] picture per prompt, drawn with the seed beside it."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How well somebody draws; shares are between 0 and 1.

    Attributes:
        prompts: how many scenes were asked for, and drawn four times each (plain, two crops, coarse).
        background: share of the plain pictures with the background asked for.
        colour: share with the object's colour asked for.
        shape: share with the shape asked for.
        size: share with the size asked for (chance is 1 in 3).
        all_right: share with all four.
        crop_direction: share of cropped pictures whose object moved the way that was asked, by more than 2 pixels.
        crop_shift: median of the pixels it moved that way; :data:`CROP` were asked.
        sharp_edges: median width in pixels of the edges in plain pictures.
        coarse_edges: the same for an ``original_size`` of :data:`COARSE`.
        softened: share of pictures whose edges became at least 1.5 times as wide.

    """

    prompts: int
    background: float
    colour: float
    shape: float
    size: float
    all_right: float
    crop_direction: float
    crop_shift: float
    sharp_edges: float
    coarse_edges: float
    softened: float


def fresh_scenes(count: int) -> list[Scene]:
    """Return the first ``count`` scenes of the evaluation, all held out of training, in a shuffled fixed order.

    There are 198; beyond that they come round again, to be drawn with other seeds.
    """
    scenes = [scene for scene in all_scenes() if held_out(scene)]
    random.Random("evaluation").shuffle(scenes)
    return [scenes[number % len(scenes)] for number in range(count)]


def evaluate(draw: Draw, *, count: int = 200, batch: int = 20) -> Figures:
    """Have ``count`` fresh scenes drawn, ``batch`` at a time, and return how well that went.

    Raises:
        ValueError: the drawer returned another number of pictures than it was asked for.

    """
    scenes = fresh_scenes(count)
    plain = _readings(draw, scenes, batch)
    upward = _readings(draw, scenes, batch, crops_coords_top_left=(CROP, 0))
    leftward = _readings(draw, scenes, batch, crops_coords_top_left=(0, CROP))
    coarse = _readings(draw, scenes, batch, original_size=(COARSE, COARSE))
    shifts = [before.place[1] - after.place[1] for before, after in _seen(plain, upward)]
    shifts += [before.place[0] - after.place[0] for before, after in _seen(plain, leftward)]
    edges = [(before.softness, after.softness) for before, after in _seen(plain, coarse)]
    right = [_right(scene, reading) for scene, reading in zip(scenes, plain, strict=True)]
    return Figures(
        prompts=count,
        **{trait: mean(row[trait] for row in right) for trait in _TRAITS},
        all_right=mean(all(row.values()) for row in right),
        crop_direction=sum(shift > 2 for shift in shifts) / (2 * count),
        crop_shift=median(shifts) if shifts else 0.0,
        sharp_edges=median(sharp for sharp, _ in edges) if edges else 0.0,
        coarse_edges=median(soft for _, soft in edges) if edges else 0.0,
        softened=sum(soft >= 1.5 * sharp for sharp, soft in edges) / count,
    )


_TRAITS = ("background", "colour", "shape", "size")


def _right(scene: Scene, reading: Reading) -> dict[str, bool]:
    return {trait: getattr(reading, trait) == getattr(scene, trait) for trait in _TRAITS}


def _seen(before: list[Reading], after: list[Reading]) -> list[tuple[Reading, Reading]]:
    """Return the pairs in which both pictures show an object at all."""
    return [pair for pair in zip(before, after, strict=True) if pair[0].shape and pair[1].shape]


def _readings(draw: Draw, scenes: list[Scene], batch: int, **micro: Any) -> list[Reading]:
    readings: list[Reading] = []
    for first in range(0, len(scenes), batch):
        part = scenes[first : first + batch]
        drawn = draw([plain_caption(scene) for scene in part], range(first, first + len(part)), **micro)
        if len(drawn) != len(part):
            raise ValueError(f"{len(part)} pictures were asked for and {len(drawn)} drawn")
        readings += [read_back(pixels) for pixels in drawn]
    return readings


def table(figures: Figures) -> str:
    """Return the figures as a Markdown table."""
    shares = [(trait, getattr(figures, trait)) for trait in _TRAITS]
    shares += [("all four", figures.all_right), ("crop moves the object the right way", figures.crop_direction)]
    shares += [(f"original_size {COARSE} softens the edges", figures.softened)]
    rows = [f"| {name} | {100 * share:.1f} % |" for name, share in shares]
    rows.append(f"| median shift for a crop of {CROP} px | {figures.crop_shift:.1f} px |")
    rows.append(
        f"| median width of edges, plain / coarse | {figures.sharp_edges:.1f} / {figures.coarse_edges:.1f} px |"
    )
    return "\n".join([f"| {figures.prompts} fresh prompts | |", "| --- | --- |", *rows])
