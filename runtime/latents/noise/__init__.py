"""Seeds: the numbers that torch's generators give, without torch.

Every image has a seed and a generator of its own, so that its noise depends neither on the batch nor on the engine.
"""

from typing import Protocol, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from ....engines.errors import UsageError, nearest
from .mersenne import Generator
from .philox import PhiloxGenerator
from .seed import check_seed
from .torch_stream import GeneratorStream, device_of, stream_of

__all__ = [
    "Generator",
    "GeneratorStream",
    "NormalSource",
    "PhiloxGenerator",
    "check_seed",
    "device_of",
    "generator_for",
    "stream_of",
]


class NormalSource(Protocol):
    """Anything that yields a stream of standard normal numbers."""

    def normal(self, shape: tuple[int, ...], /) -> NDArray[np.float32]:
        """Return the next numbers."""


_SOURCES: dict[str, type[Generator] | type[PhiloxGenerator]] = {"cpu": Generator, "cuda": PhiloxGenerator}


def generator_for(seed: SupportsIndex, rng: str = "cpu") -> Generator | PhiloxGenerator:
    """Return a fresh generator: the numbers of torch's CPU generator, or of its CUDA generator.

    Raises:
        UsageError: the seed is out of range, or ``rng`` is neither "cpu" nor "cuda".

    """
    if rng not in _SOURCES:
        raise UsageError(f"unknown random generator {rng!r}: there are {', '.join(_SOURCES)}{nearest(rng, _SOURCES)}")
    return _SOURCES[rng](seed)
