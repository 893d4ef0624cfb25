"""Runs a network over a large array in overlapping tiles, blended as diffusers' ``AutoencoderKL`` does (0.42)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["OVERLAP", "Tiling", "blended"]

F32 = NDArray[np.float32]

OVERLAP = 0.25
"""Share of a tile that overlaps its neighbour."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """The sizes of square tiles, in pixels or latents.

    Attributes:
        input_side: side of a tile of the network's input.
        output_side: side of the same tile in its output.

    """

    input_side: int
    output_side: int

    @property
    def stride(self) -> int:
        """Distance from one tile to the next in the input."""
        return int(self.input_side * (1 - OVERLAP))

    @property
    def blend(self) -> int:
        """How many rows or columns of an output tile are blended with its neighbour."""
        return int(self.output_side * OVERLAP)

    def parts(self, length: int) -> Iterator[slice]:
        """Divide an input side of that length; the last parts may be shorter than a tile."""
        for start in range(0, length, self.stride):
            yield slice(start, min(start + self.input_side, length))


def blended(tiling: Tiling, height: int, width: int, run: Callable[[slice, slice], F32]) -> F32:
    """Run a network on tiles, and put its outputs together.

    Args:
        tiling: the size of the tiles.
        height: of the input.
        width: of the input.
        run: called with the rows and the columns of a tile in the input; returns its output, float32 [h, w, C], into
            which the neighbours are blended.

    Returns:
        The output for the whole input, float32 [H, W, C].

    """
    step = tiling.output_side - tiling.blend
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
        strips.append(np.concatenate([tile[:step, :step] for tile in strip], axis=1))
        above = strip
    return np.concatenate(strips)


def _blend(before: F32, after: F32, length: int) -> None:
    """Blend the last rows of one tile into the first rows of the next, which is changed in place."""
    length = min(len(before), len(after), length)
    share = np.arange(length, dtype=np.float64)[:, None, None] / max(length, 1)
    old, new = (1 - share).astype(np.float32), share.astype(np.float32)
    after[:length] = before[len(before) - length :] * old + after[:length] * new
