"""Noise of the samples of one call, each from its own stream."""

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engines.errors import UsageError
from .noise import NormalSource, check_seed, generator_for

__all__ = ["NoiseStreams", "streams_for"]

F32 = NDArray[np.float32]


class NoiseStreams:
    """One stream for each sample, or one that all share.

    Attributes:
        seeds: of each sample, as reported.

    """

    def __init__(self, seeds: Sequence[int], sources: Sequence[NormalSource], *, shared: bool) -> None:
        self.seeds = tuple(seeds)
        self._sources = tuple(sources)
        self.shared = shared

    def draw(self, shape: tuple[int, ...]) -> F32:
        """Draw the next numbers of every sample: [S, *shape]."""
        if self.shared:
            return self._sources[0].normal((len(self.seeds), *shape))
        return np.stack([source.normal(shape) for source in self._sources])

    def select(self, start: int, stop: int) -> "NoiseStreams":
        """Return the streams of some samples.

        Raises:
            UsageError: they share one, so that a part of it cannot be drawn alone.

        """
        if self.shared and (start, stop) != (0, len(self.seeds)):
            raise UsageError("one generator for more images than the bundle draws at once; give one for each image")
        return NoiseStreams(
            self.seeds[start:stop], self._sources if self.shared else self._sources[start:stop], shared=self.shared
        )


def streams_for(seed: Any, generator: Any, count: int, rng: str) -> NoiseStreams:
    """Return the streams of ``count`` samples.

    Args:
        seed: an int, for sample i it is seed + i; or one for each sample; None chooses one.
        generator: one or ``count`` objects with ``initial_seed()``, or None.
        count: number of samples.
        rng: ``cpu`` or ``cuda``.

    Raises:
        UsageError: a seed is out of range, or there are neither one nor ``count`` of them.

    """
    if generator is not None:
        several = isinstance(generator, (list, tuple))
        given = list(generator) if several else [generator]
        if several and len(given) != count:
            raise UsageError(f"{len(given)} generators for {count} images: give one, or one for each image")
        seeds = [_initial_seed(g) for g in given]
        sources = [generator_for(s, rng) for s in seeds]
        return NoiseStreams(seeds * (1 if several else count), sources, shared=not several)
    if seed is None:
        seed = secrets.randbelow(2**32)
    if isinstance(seed, (list, tuple, range)):
        if len(seed) != count:
            raise UsageError(f"{len(seed)} seeds for {count} images: give one, or one for each image")
        seeds = [check_seed(s) for s in seed]
    else:
        first = check_seed(seed)
        seeds = [(first + i) % 2**64 for i in range(count)]
    return NoiseStreams(seeds, [generator_for(s, rng) for s in seeds], shared=False)


def _initial_seed(generator: Any) -> int:
    read = getattr(generator, "initial_seed", None)
    if read is None:
        raise UsageError(f"a generator needs initial_seed(); {type(generator).__name__} has none. Or give seed")
    return check_seed(read())
