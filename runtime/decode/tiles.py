"""Large arrays through a network in overlapping tiles, blended as diffusers' ``AutoencoderKL`` blends them (0.42)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["OVERLAP", "Tiling", "blended"]

F32 = NDArray[np.float32]

OVERLAP = 0.25
"""Share of a tile that lies over its neighbour."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How an array is cut, and what comes out put together.

    Attributes:
        taken: length of a tile's sides, of what goes in.
        given: the same of what comes out.

    """

    taken: int
    given: int

    @property
    def stride(self) -> int:
        """From one tile to the next, of what goes in."""
        return int(self.taken * (1 - OVERLAP))

    @property
    def blend(self) -> int:
        """How much of what comes out is blended with its neighbour."""
        return int(self.given * OVERLAP)

    def parts(self, length: int) -> Iterator[slice]:
        """Yield the parts of a length; the last ones may be shorter than a tile."""
        for start in range(0, length, self.stride):
            yield slice(start, min(start + self.taken, length))


def blended(tiling: Tiling, height: int, width: int, run: Callable[[slice, slice], F32]) -> F32:
    """Run tiles and put the results together.

    Args:
        tiling: how to cut.
        height: of what goes in.
        width: of what goes in.
        run: what makes the result of a tile, float32 [h, w, C], which is written to.

    Returns:
        The whole, float32 [H, W, C].

    """
    shown = tiling.given - tiling.blend
    above: list[F32] = []
    strips = []
    for rows in tiling.parts(height):
        strip: list[F32] = []
        for column, columns in enumerate(tiling.parts(width)):
            tile = run(rows, columns)
            if above:
                _blend(above[column], tile, tiling.blend)
            if strip:
                _blend(strip[-1].swapaxes(0, 1), tile.swapaxes(0, 1), tiling.blend)
            strip.append(tile)
        strips.append(np.concatenate([tile[:shown, :shown] for tile in strip], axis=1))
        above = strip
    return np.concatenate(strips)


def _blend(before: F32, after: F32, length: int) -> None:
    """Let the end of one tile pass into the beginning of the next, which is written to."""
    length = min(len(before), len(after), length)
    share = np.arange(length, dtype=np.float64)[:, None, None] / max(length, 1)
    old, new = (1 - share).astype(np.float32), share.astype(np.float32)
    after[:length] = before[len(before) - length :] * old + after[:length] * new
