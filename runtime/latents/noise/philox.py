"""The normal numbers of torch's CUDA generator, computed on the host.

torch samples with cuRAND's Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1,
2, 3"): the seed is the key, a thread's number the upper half of the counter, and the lower half counts what the
generator has given out before. Each evaluation yields four words and, by Box-Muller, four normals.

How these spread over a tensor is decided by ATen's ``native/cuda/DistributionTemplates.h``: blocks of 256 threads,
one thread per number as long as the GPU can hold that many, and each thread then uses only the *first* of its four
normals. On a smaller GPU every thread goes on with its other three, so the numbers of a large tensor depend on the GPU.
Here it is one that holds a thread for each number: an RTX 4090 holds 196,608, an A100 221,184 (multiprocessors times
threads of each), and a latent of 1024 x 1024 pixels has 65,536.
"""

import math
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from .seed import check_seed

__all__ = ["PhiloxGenerator", "philox4x32"]

_AT_ONCE = 1 << 14  # threads computed together, so that their words stay in the cache

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

_Words = NDArray[np.uint64]


def philox4x32(counter: Sequence[_Words], key: tuple[int, int]) -> list[_Words]:
    """Ten rounds of Philox4x32 on arrays of counters: four words in and out, each in the low half of a uint64."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        product0, product2 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1 = (product2 >> _HALF) ^ c1 ^ np.uint64(k0), product2 & _LOW
        c2, c3 = (product0 >> _HALF) ^ c3 ^ np.uint64(k1), product0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


class PhiloxGenerator:
    """A stream of normal numbers equal to ``torch.Generator("cuda").manual_seed(seed)`` and ``torch.randn``.

    Args:
        seed: -2**63 to 2**64 - 1, as torch takes it.

    Attributes:
        calls: how many evaluations of Philox each thread has made.

    Raises:
        UsageError: the seed is out of range.

    """

    def __init__(self, seed: SupportsIndex) -> None:
        self.seed = check_seed(seed)
        self.calls = 0

    @property
    def used(self) -> bool:
        """Whether numbers have been taken."""
        return self.calls > 0

    def normal(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """Return the next standard normal numbers, in C order; float32."""
        count = math.prod(shape)
        if count == 0:
            return np.empty(tuple(shape), np.float32)
        normals = np.empty(count, np.float32)
        for start in range(0, count, _AT_ONCE):
            thread = np.arange(start, min(start + _AT_ONCE, count), dtype=np.uint64)
            normals[start : start + _AT_ONCE] = self._evaluate(thread)
        self.calls += 1
        return normals.reshape(tuple(shape))

    def _evaluate(self, thread: _Words) -> NDArray[np.float64]:
        """The first normal of each thread's next evaluation."""
        low, high = np.full_like(thread, self.calls & 0xFFFFFFFF), np.full_like(thread, self.calls >> 32)
        words = philox4x32([low, high, thread & _LOW, thread >> _HALF], (self.seed & 0xFFFFFFFF, self.seed >> 32))
        return _box_muller(words[0], words[1])


def _box_muller(x: _Words, y: _Words) -> NDArray[np.float64]:
    """The first of Box-Muller's two normals as cuRAND computes it in float32 (``_curand_box_muller``), with the sine.

    The words are rounded to float32 and scaled by one fused multiply-add, as on the GPU; the rest is in double,
    because the GPU's own sine is not the host's to the last bit anyway.
    """
    u = _fused(x, np.float32(2.0**-32))
    v = _fused(y, np.float32(2.0**-32 * 2.0 * math.pi))
    return np.sqrt(-2.0 * np.log(u)) * np.sin(v)


def _fused(words: _Words, scale: np.float32) -> NDArray[np.float64]:
    """``words * scale + scale / 2`` with one rounding to float32."""
    exact = words.astype(np.float32).astype(np.float64) * float(scale) + float(scale) / 2.0
    return exact.astype(np.float32).astype(np.float64)
