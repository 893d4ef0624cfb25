"""Reads a picture back: what was drawn, in which colours, how large, where, and how soft its edges are.

Numpy only, so that tests, benchmarks and the runtime can judge pictures without torch.

The background is the colour of the border, the object's colour that of the pixels farthest from it. Between the
two every pixel is a mixture; the share of the object is the *coverage*, and everything else is read from that. The
shape is the outline whose coverage, brought to the same centre and spread, is most alike.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from .captions import COLOURS, SHAPES, SIZES
from .shapes import coverage

__all__ = ["Reading", "read_back"]

_FAINT = 45.0  # two colours closer than this in RGB are no object on a background
_GRID = 40  # the shape is compared on so many points each way
_REACH = 2.0  # to so many deviations from the centre
_FLAT = 0.12  # coverage this close to 0 or 1 is noise on a flat colour, not an edge

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a picture shows. Without an object, shape and size are empty, the colour is the background's, area is 0.

    Attributes:
        background: nearest colour name of the border.
        colour: nearest colour name of the object.
        shape: name of the most similar outline.
        size: nearest size name, relative to the picture's shorter side.
        place: centre of the object (x, y) in pixels from the top left corner.
        area: of the object, in pixels.
        softness: width of the object's edges in pixels; about 1 for sharp ones.

    """

    background: str
    colour: str
    shape: str
    size: str
    place: tuple[float, float]
    area: float
    softness: float


def read_back(pixels: npt.NDArray[np.uint8]) -> Reading:
    """Read one picture [height, width, 3] of 8-bit sRGB."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"a picture is [height, width, 3] of uint8, not {list(pixels.shape)} of {pixels.dtype}")
    colours = pixels.astype(np.float64)
    background = _border_colour(colours)
    share = _coverage(colours, background)
    if share is None:
        name = _nearest_colour(background)
        return Reading(background=name, colour=name, shape="", size="", place=(0.0, 0.0), area=0.0, softness=0.0)
    covered, colour = share
    centre, spread = _moments(covered)
    shape = _shape(covered, centre, spread)
    return Reading(
        background=_nearest_colour(background),
        colour=_nearest_colour(colour),
        shape=shape,
        size=_size(spread / _unit_spread(shape), min(pixels.shape[:2])),
        place=centre,
        area=float(covered.sum()),
        softness=_softness(covered),
    )


def _nearest_colour(colour: Floats) -> str:
    return min(COLOURS, key=lambda name: float(np.square(colour - COLOURS[name]).sum()))


def _border_colour(colours: Floats) -> Floats:
    border = np.concatenate([colours[:3].reshape(-1, 3), colours[-3:].reshape(-1, 3),
                             colours[:, :3].reshape(-1, 3), colours[:, -3:].reshape(-1, 3)])  # fmt: skip
    return np.asarray(np.median(border, axis=0))


def _coverage(colours: Floats, background: Floats) -> tuple[Floats, Floats] | None:
    """Return the object's share of every pixel and its colour, or None where nothing stands out."""
    distance = np.sqrt(np.square(colours - background).sum(axis=2))
    farthest = float(np.quantile(distance, 0.995))
    if farthest < _FAINT:
        return None
    region = _largest_region(distance > 0.5 * farthest)
    inner = region & (distance > 0.85 * float(np.quantile(distance[region], 0.9)))
    colour = np.asarray(np.median(colours[inner], axis=0))
    axis = colour - background
    share = np.clip((colours - background) @ axis / float(axis @ axis), 0.0, 1.0)
    share[share < _FLAT] = 0.0
    share[share > 1 - _FLAT] = 1.0
    return np.where(_grown(region, 8), share, 0.0), colour


def _grown(mask: npt.NDArray[np.bool_], pixels: int) -> npt.NDArray[np.bool_]:
    """Return the mask with everything within so many pixels up, down, left and right added."""
    grown = mask.copy()
    for _ in range(pixels):
        before = grown.copy()
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
        grown[:, 1:] |= before[:, :-1]
        grown[:, :-1] |= before[:, 1:]
    return grown


def _largest_region(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the largest region of connected true pixels: specks beside the object do not count.

    Every pixel starts with a number of its own and takes the highest among its neighbours' until nothing changes.
    """
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        before = labels.copy()
        for towards, source in ((np.s_[1:], np.s_[:-1]), (np.s_[:-1], np.s_[1:])):
            np.maximum(labels[towards], labels[source], out=labels[towards], where=mask[towards])
            np.maximum(labels[:, towards], labels[:, source], out=labels[:, towards], where=mask[:, towards])
        if np.array_equal(before, labels):
            counts = np.bincount(labels.ravel())
            counts[0] = 0
            return np.asarray(labels == int(counts.argmax()))


def _moments(covered: Floats) -> tuple[tuple[float, float], float]:
    """Return the centre (x, y) and the root of the mean squared distance from it, in pixels."""
    y, x = np.indices(covered.shape) + 0.5
    total = float(covered.sum())
    centre = float((covered * x).sum()) / total, float((covered * y).sum()) / total
    square = float((covered * ((x - centre[0]) ** 2 + (y - centre[1]) ** 2)).sum()) / total
    return centre, square**0.5


@cache
def _template(shape: str) -> tuple[Floats, float]:
    """Return the shape's coverage on the grid of :func:`_grid`, and its spread in radii."""
    fine = (np.arange(240) + 0.5) / 240 * 2.4 - 1.2
    covered = coverage(shape, *np.meshgrid(fine, fine))
    (x, y), spread = _moments(covered)
    step = fine[1] - fine[0]
    middle = np.array([x, y]) * step - 1.2
    points = _grid() * spread * step
    return coverage(shape, middle[0] + points[None, :], middle[1] + points[:, None]), spread * step


def _grid() -> Floats:
    return np.linspace(-_REACH, _REACH, _GRID)


def _unit_spread(shape: str) -> float:
    return _template(shape)[1]


def _shape(covered: Floats, centre: tuple[float, float], spread: float) -> str:
    """Return the shape whose coverage differs least once both have the same centre and spread."""
    x, y = centre[0] + _grid() * spread - 0.5, centre[1] + _grid() * spread - 0.5
    seen = _bilinear(covered, x, y)
    return min(SHAPES, key=lambda shape: float(np.square(seen - _template(shape)[0]).sum()))


def _bilinear(values: Floats, x: Floats, y: Floats) -> Floats:
    """Return the values at rows y and columns x, in pixels from the first pixel's centre; 0 outside."""
    padded = np.pad(values, 1)
    x, y = (np.clip(at + 1, 0, length + 0.999) for at, length in ((x, values.shape[1]), (y, values.shape[0])))
    column, row = x.astype(int), y.astype(int)
    fx, fy = x - column, (y - row)[:, None]
    upper = padded[row][:, column] * (1 - fx) + padded[row][:, column + 1] * fx
    lower = padded[row + 1][:, column] * (1 - fx) + padded[row + 1][:, column + 1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)


def _size(radius: float, side: int) -> str:
    """Return the size whose radius is nearest by ratio, for a picture of that shorter side."""
    return min(SIZES, key=lambda size: abs(float(np.log(radius * 128 / side / SIZES[size]))))


def _softness(covered: Floats) -> float:
    """Return the mean width of the edges in pixels: mixed coverage by length of outline.

    4 a (1 - a) integrates to 2/3 of the width of a linear ramp, and the total variation of the coverage is the
    length of the outline however soft it is.
    """
    down, right = np.diff(covered, axis=0)[:, :-1], np.diff(covered, axis=1)[:-1]
    outline = float(np.hypot(down, right).sum())
    return 1.5 * float((4 * covered * (1 - covered)).sum()) / outline
