"""Guidance as a matrix: the rows of a sample, and the factors that add the network's outputs up to its prediction."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Guidance", "guidance_for"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Guidance of one sample at each of its N evaluations.

    With classifier-free guidance the sample has two rows, the negative prompt's and the prompt's; without, one.

    Attributes:
        mix: float32 [N, rows], factors of the network's outputs for these rows in the sample's prediction.
        rescale: float32 [N, rows], see :class:`~sdengine.engines.nets.denoiser.Denoiser`.

    """

    mix: F32
    rescale: F32

    @property
    def rows(self) -> int:
        """How many rows the sample has, 1 or 2."""
        return int(self.mix.shape[1])

    @property
    def negative_rows(self) -> int:
        """How many of them are the negative prompt's, 0 or 1."""
        return self.rows - 1

    def by_row(self, positive: F32, negative: F32 | None) -> F32:
        """Join the prompts' and the negative prompts' arrays of S samples, [S, ...] each, to [S * rows, ...]."""
        if not self.negative_rows:
            return np.ascontiguousarray(positive, np.float32)
        assert negative is not None
        pairs = np.stack([negative, positive], axis=1).astype(np.float32, copy=False)
        return np.ascontiguousarray(pairs.reshape(-1, *positive.shape[1:]))


def guidance_for(scale: float, *, evaluations: int, rescale: float, guided: bool) -> Guidance:
    """Return classifier-free guidance (Ho and Salimans, 2022, arXiv:2207.12598), or one row without guidance.

    Args:
        scale: guidance scale g; the prediction is (1 - g) * negative + g * positive.
        evaluations: N.
        rescale: see :class:`~sdengine.engines.nets.denoiser.Denoiser`.
        guided: whether to guide; without, the prediction is the network's output for the prompt.

    """
    mix = [1 - scale, scale] if guided else [1.0]
    shares = [0.0, rescale] if guided else [0.0]
    return Guidance(mix=_for_each_evaluation(mix, evaluations), rescale=_for_each_evaluation(shares, evaluations))


def _for_each_evaluation(row: list[float], evaluations: int) -> F32:
    return np.tile(np.array(row, np.float32), (evaluations, 1))
