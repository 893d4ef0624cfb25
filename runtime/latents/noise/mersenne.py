"""The normal numbers of torch's CPU generator.

torch seeds MT19937 (Matsumoto and Nishimura 1998, ``init_genrand``) with the low 32 bits of the seed and samples
float32 normals in one of two ways (ATen's ``native/cpu/DistributionTemplates.h``, ``normal_fill``):

* 16 numbers or more: 24-bit uniforms, one per number, then Box-Muller in blocks of 16, the first eight uniforms of
  a block giving the radii and the last eight the angles. If the length is no multiple of 16, the *last* 16 numbers
  are replaced, from fresh uniforms.
* fewer than 16: one at a time in double precision from 53-bit uniforms; the second number of a Box-Muller pair is
  saved for the next such call, even if larger ones come in between.
"""

import math
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from .seed import check_seed

__all__ = ["Generator"]

_BLOCK = 16


class Generator:
    """A stream of normal numbers equal to ``torch.Generator("cpu").manual_seed(seed)`` and ``torch.randn``.

    Args:
        seed: -2**63 to 2**64 - 1, as torch takes it.

    Raises:
        UsageError: the seed is out of range.

    """

    def __init__(self, seed: SupportsIndex) -> None:
        self.seed = check_seed(seed)
        self._bits = np.random.MT19937()
        # numpy seeds a bare MT19937 another way; RandomState seeds it with init_genrand, as torch does.
        start: Any = np.random.RandomState(self.seed & 0xFFFFFFFF).get_state(legacy=False)
        self._bits.state = start
        self._spare: float | None = None

    @property
    def place(self) -> tuple[NDArray[np.uint32], int, float | None]:
        """MT19937's 624 words, which of them is next (624: none is left), and a pair's second number."""
        state: Any = self._bits.state
        return state["state"]["key"], int(state["state"]["pos"]), self._spare

    @place.setter
    def place(self, place: tuple[NDArray[np.uint32], int, float | None]) -> None:
        words, following, self._spare = place
        state: Any = {"bit_generator": "MT19937", "state": {"key": words, "pos": following}}
        self._bits.state = state

    @property
    def used(self) -> bool:
        """Whether numbers have been taken."""
        (words, following, second), (first_words, first, _) = self.place, Generator(self.seed).place
        return following != first or second is not None or not np.array_equal(words, first_words)

    def normal(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """Return the next standard normal numbers, in C order; float32, within 1e-6 of torch's."""
        count = math.prod(shape)
        flat = self._few(count) if count < _BLOCK else self._many(count)
        return flat.reshape(tuple(shape))

    def _uniform24(self, count: int) -> NDArray[np.float32]:
        """Float32 uniforms in [0, 1): the low 24 bits of each 32-bit output."""
        bits = self._bits.random_raw(count).astype(np.uint32) & np.uint32(0xFFFFFF)
        return bits.astype(np.float32) * np.float32(2.0**-24)

    def _many(self, count: int) -> NDArray[np.float32]:
        uniforms = self._uniform24(count)
        whole = count - count % _BLOCK
        if whole == count:
            return _box_muller(uniforms)
        normals = np.empty(count, np.float32)
        normals[:whole] = _box_muller(uniforms[:whole])
        normals[-_BLOCK:] = _box_muller(self._uniform24(_BLOCK))
        return normals

    def _uniform53(self) -> float:
        """A double in [0, 1): the low 53 bits of two outputs, the first of which is the high word."""
        high, low = self._bits.random_raw(2)
        return (((int(high) << 32) | int(low)) & (2**53 - 1)) * 2.0**-53

    def _few(self, count: int) -> NDArray[np.float32]:
        normals = np.empty(count, np.float32)
        for i in range(count):
            if self._spare is not None:
                normals[i], self._spare = self._spare, None
                continue
            angle = 2.0 * math.pi * self._uniform53()
            radius = math.sqrt(-2.0 * math.log1p(-self._uniform53()))
            normals[i], self._spare = radius * math.cos(angle), radius * math.sin(angle)
        return normals


def _box_muller(uniforms: NDArray[np.float32]) -> NDArray[np.float32]:
    """Uniforms in blocks of 16 -> normals (Box and Muller 1958); 1 - u keeps the logarithm off zero."""
    blocks = uniforms.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - blocks[:, 0]))
    angle = np.float32(2.0 * math.pi) * blocks[:, 1]
    normals = np.empty_like(blocks)
    np.multiply(radius, np.cos(angle), out=normals[:, 0])
    np.multiply(radius, np.sin(angle), out=normals[:, 1])
    return normals.reshape(-1)
