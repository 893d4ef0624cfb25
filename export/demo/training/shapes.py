"""The outlines of the shapes, shared by the program that draws them and the one that reads them back.

An outline is a list of closed polygons in units of the shape's radius (the circle around it), x to the right and
y down, centred on the origin; a point is inside when it is inside an odd number of them.
"""

import math

import numpy as np
import numpy.typing as npt

__all__ = ["OUTLINES", "coverage"]

_HOLE = 0.55  # inner radius of the ring
_NOTCH = 0.42  # inner radius of the star
_ARM = 0.32  # half the width of an arm of the cross
_ROUND = 48  # corners of the polygon that stands for a circle

Polygon = npt.NDArray[np.float64]


def _regular(corners: int, *, radius: float = 1.0, turn: float = 0.0) -> Polygon:
    """Return [corners, 2] points on a circle, the first straight up, turned clockwise by ``turn`` radians."""
    angles = -math.pi / 2 + turn + np.arange(corners) * (2 * math.pi / corners)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> Polygon:
    outer, inner = _regular(5), _regular(5, radius=_NOTCH, turn=math.pi / 5)
    return np.stack([outer, inner], axis=1).reshape(10, 2)


def _cross() -> Polygon:
    a, e = _ARM, 0.95
    corner = [
        (a, -e),
        (a, -a),
        (e, -a),
        (e, a),
        (a, a),
        (a, e),
        (-a, e),
        (-a, a),
        (-e, a),
        (-e, -a),
        (-a, -a),
        (-a, -e),
    ]
    return np.array(corner)


OUTLINES: dict[str, list[Polygon]] = {
    "circle": [_regular(_ROUND, radius=0.9)],
    "square": [_regular(4, turn=math.pi / 4, radius=1.1)],
    "triangle": [_regular(3, radius=1.1)],
    "star": [_star()],
    "ring": [_regular(_ROUND), _regular(_ROUND, radius=_HOLE)],
    "cross": [_cross()],
}


def coverage(shape: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return 1 where the points (x, y), in radii, are inside the shape and 0 where not (even-odd rule)."""
    inside = np.zeros(np.broadcast(x, y).shape, dtype=bool)
    for polygon in OUTLINES[shape]:
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y0 == y1:
                continue
            crosses = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
            inside ^= crosses
    return inside.astype(np.float64)
