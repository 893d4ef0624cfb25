"""Guidance as a matrix: which rows the network runs on, and how their outputs mix into the samples' predictions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Guidance", "guidance_for"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """S samples on R rows; with classifier-free guidance the S negative rows come first.

    Attributes:
        row_sample: int64 [R].
        mix: float32 [S, R].
        rescale: float32 [S, R].
        negative_rows: how many rows carry the negative prompt.

    """

    row_sample: NDArray[np.int64]
    mix: F32
    rescale: F32
    negative_rows: int

    @property
    def rows(self) -> int:
        """R."""
        return len(self.row_sample)

    def stack(self, positive: F32, negative: F32 | None) -> F32:
        """Join the samples' conditions [S, ...] to the rows' [R, ...]."""
        if not self.negative_rows:
            return np.ascontiguousarray(positive, np.float32)
        assert negative is not None
        return np.concatenate([negative, positive]).astype(np.float32, copy=False)


def guidance_for(samples: int, scale: float, *, rescale: float, guided: bool) -> Guidance:
    """Return classifier-free guidance (Ho and Salimans, 2022, arXiv:2207.12598), or none.

    Args:
        samples: S.
        scale: guidance scale g; the prediction is (1 - g) * negative + g * positive.
        rescale: see :class:`~sdengine.engines.nets.denoiser.Denoiser`.
        guided: whether there are negative rows.

    """
    one = np.eye(samples, dtype=np.float32)
    index = np.arange(samples, dtype=np.int64)
    if not guided:
        return Guidance(row_sample=index, mix=one, rescale=np.zeros_like(one), negative_rows=0)
    mix = np.concatenate([one * np.float32(1 - scale), one * np.float32(scale)], axis=1)
    shares = np.concatenate([np.zeros_like(one), one * np.float32(rescale)], axis=1)
    return Guidance(
        row_sample=np.concatenate([index, index]),
        mix=np.ascontiguousarray(mix),
        rescale=np.ascontiguousarray(shares),
        negative_rows=samples,
    )
