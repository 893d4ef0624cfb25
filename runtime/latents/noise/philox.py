"""The normal numbers of torch's CUDA generator, computed on the host.

torch draws with cuRAND's Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1,
2, 3"): the seed is the key, a thread's number the upper half of the counter, and the lower half counts what the
generator has given out before. Each evaluation yields four words and, by Box-Muller, four normals.

How these spread over a tensor is decided by ATen's ``native/cuda/DistributionTemplates.h``: blocks of 256 threads,
one thread per number as long as the GPU can hold that many, and each thread then uses only the *first* of its four
normals. A larger tensor makes every thread go on with its other three, in strides of the number of threads, so its
numbers depend on the GPU; see ``resident_threads``.
"""

import math
from collections.abc import Sequence
from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from .seed import check_seed

__all__ = ["PhiloxGenerator", "philox4x32"]

_BLOCK = 256  # threads of a block
_PER_CALL = 4  # normals of one Philox evaluation
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
        resident_threads: how many threads the GPU to imitate can hold at once (its multiprocessors times the
            threads of one, rounded down to blocks of 256): 196,608 on an RTX 4090, 221,184 on an A100. Only tensors
            of more numbers than that depend on it; a latent of 1024 x 1024 pixels has 65,536. ``None`` stands
            for a GPU that is large enough for any tensor.

    Attributes:
        calls: how many evaluations of Philox each thread has made.

    Raises:
        UsageError: the seed is out of range.

    """

    def __init__(self, seed: SupportsIndex, *, resident_threads: int | None = None) -> None:
        self.seed = check_seed(seed)
        self._blocks = None if resident_threads is None else max(1, resident_threads // _BLOCK)
        self.calls = 0

    @property
    def used(self) -> bool:
        """Whether numbers have been drawn."""
        return self.calls > 0

    def normal(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """Draw the next standard normal numbers, in C order; float32."""
        count = math.prod(shape)
        if count == 0:
            return np.empty(tuple(shape), np.float32)
        blocks = -(-count // _BLOCK)
        threads = _BLOCK * (blocks if self._blocks is None else min(blocks, self._blocks))
        calls = -(-count // (threads * _PER_CALL))  # evaluations by each thread
        lanes = min(_PER_CALL, -(-count // threads))  # normals of an evaluation that anything of the tensor uses
        normals = np.empty((calls, lanes, threads), np.float32)
        for call in range(calls):
            for start in range(0, threads, _AT_ONCE):
                thread = np.arange(start, min(start + _AT_ONCE, threads), dtype=np.uint64)
                normals[call, :, start : start + _AT_ONCE] = self._evaluate(self.calls + call, thread, lanes)
        self.calls += calls
        return normals.reshape(-1)[:count].reshape(tuple(shape))

    def _evaluate(self, call: int, thread: _Words, lanes: int) -> list[NDArray[np.float64]]:
        """The first ``lanes`` normals of each thread's evaluation number ``call``."""
        low, high = np.full_like(thread, call & 0xFFFFFFFF), np.full_like(thread, call >> 32)
        words = philox4x32([low, high, thread & _LOW, thread >> _HALF], (self.seed & 0xFFFFFFFF, self.seed >> 32))
        return [normal for i in range(0, lanes, 2) for normal in _box_muller(words[i], words[i + 1], lanes - i)]


def _box_muller(x: _Words, y: _Words, lanes: int) -> list[NDArray[np.float64]]:
    """Box-Muller as cuRAND does it in float32 (``_curand_box_muller``): the sine first.

    The words are rounded to float32 and scaled by one fused multiply-add, as on the GPU; the rest is in double,
    because the GPU's own sine is not the host's to the last bit anyway. The cosine is left out for one lane.
    """
    u = _fused(x, np.float32(2.0**-32))
    v = _fused(y, np.float32(2.0**-32 * 2.0 * math.pi))
    radius = np.sqrt(-2.0 * np.log(u))
    return [radius * np.sin(v)] if lanes == 1 else [radius * np.sin(v), radius * np.cos(v)]


def _fused(words: _Words, scale: np.float32) -> NDArray[np.float64]:
    """``words * scale + scale / 2`` with one rounding to float32."""
    exact = words.astype(np.float32).astype(np.float64) * float(scale) + float(scale) / 2.0
    return exact.astype(np.float32).astype(np.float64)
