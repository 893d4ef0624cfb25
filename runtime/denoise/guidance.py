"""Guidance as a matrix: which rows a sample's network runs on, and how their outputs mix into its prediction."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Guidance", "guidance_for"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Guidance of one sample on its rows; with classifier-free guidance the first row carries the negative prompt.

    Attributes:
        mix: float32 [N, rows], by evaluation: factors of the rows' outputs in the prediction.
        rescale: float32 [N, rows], see :class:`~sdengine.engines.nets.denoiser.Denoiser`.

    """

    mix: F32
    rescale: F32

    @property
    def rows(self) -> int:
        """How many rows the sample takes."""
        return int(self.mix.shape[1])

    @property
    def negative_rows(self) -> int:
        """How many of them carry the negative prompt."""
        return self.rows - 1

    def by_row(self, positive: F32, negative: F32 | None) -> F32:
        """Join the conditions of S samples, [S, ...], to those of their rows, [S * rows, ...], sample by sample."""
        if not self.negative_rows:
            return np.ascontiguousarray(positive, np.float32)
        assert negative is not None
        pairs = np.stack([negative, positive], axis=1).astype(np.float32, copy=False)
        return np.ascontiguousarray(pairs.reshape(-1, *positive.shape[1:]))


def guidance_for(scale: float, *, evaluations: int, rescale: float, guided: bool) -> Guidance:
    """Return classifier-free guidance (Ho and Salimans, 2022, arXiv:2207.12598), or none.

    Args:
        scale: guidance scale g; the prediction is (1 - g) * negative + g * positive.
        evaluations: N.
        rescale: see :class:`~sdengine.engines.nets.denoiser.Denoiser`.
        guided: whether there is a negative row.

    """
    mix = [1 - scale, scale] if guided else [1.0]
    shares = [0.0, rescale] if guided else [0.0]
    return Guidance(mix=_for_each_evaluation(mix, evaluations), rescale=_for_each_evaluation(shares, evaluations))


def _for_each_evaluation(row: list[float], evaluations: int) -> F32:
    return np.tile(np.array(row, np.float32), (evaluations, 1))
