"""Noise of the samples of one call, each from its own stream."""

import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from .noise import GeneratorStream, NormalSource, check_seed, device_of, generator_for, stream_of

__all__ = ["NoiseStreams", "SampleNoise", "generator_notes", "streams_for"]

F32 = NDArray[np.float32]
Kind = Literal["own", "listed", "shared"]


class NoiseStreams:
    """One stream for each sample, or one that all share.

    Attributes:
        seeds: of each sample, for the result.
        kind: ``own``: of seeds, a sample's numbers do not depend on the samples beside it; ``listed``: of a list of
            generators, one for each sample, used as diffusers uses such a list; ``shared``: of one generator.

    """

    def __init__(self, seeds: Sequence[int], sources: Sequence[NormalSource], *, kind: Kind) -> None:
        self.seeds = tuple(seeds)
        self.kind = kind
        self._sources = tuple(sources)
        self._waiting: list[deque[F32]] = [deque() for _ in seeds]
        """of a shared stream: numbers of each sample that it has not used yet"""

    def normal(self, shape: tuple[int, ...]) -> F32:
        """Return the next numbers of every sample: [S, *shape]."""
        if self.kind == "shared":
            return self._sources[0].normal((len(self.seeds), *shape))
        return np.stack([source.normal(shape) for source in self._sources])

    def normal_grouped(self, groups: int, shape: tuple[int, ...]) -> F32:
        """Draw numbers for several things of every sample: [groups, S, *shape].

        A shared stream gives them to the first thing of all samples, then to the second.
        """
        if self.kind == "shared":
            count = len(self.seeds)
            return self._sources[0].normal((groups * count, *shape)).reshape(groups, count, *shape)
        return np.stack([source.normal((groups, *shape)) for source in self._sources], axis=1)

    def normal_for_images(self, shape: tuple[int, ...], images: int, *, repeated: bool) -> F32:
        """Return the numbers that encoding needs: [N, *shape], N either the images or the samples.

        Args:
            shape: of an image's latents.
            images: how many there are; with fewer than samples, sample i starts from image i modulo that.
            repeated: whether diffusers, given a list of generators, encodes before it repeats the images
                (inpainting), so that only the first generators advance, or after (image-to-image).

        """
        few = self.kind == "shared" or (self.kind == "listed" and repeated)
        if not few or images >= len(self.seeds):
            return self.normal(shape)
        if self.kind == "shared":
            return self._sources[0].normal((images, *shape))
        return np.stack([source.normal(shape) for source in self._sources[:images]])

    def stream(self, index: int) -> "SampleNoise":
        """Return one sample's stream. Of a shared stream it is the sample's part."""
        return SampleNoise(self, index)

    def _normal_of(self, index: int, shape: tuple[int, ...]) -> F32:
        if self.kind != "shared":
            return self._sources[index].normal(shape)
        if not self._waiting[index]:
            for queue, part in zip(self._waiting, self.normal(shape), strict=True):
                queue.append(part)
        return self._waiting[index].popleft()


class SampleNoise:
    """One sample's stream of fresh noise.

    Args:
        streams: of all samples of its request.
        index: which of them it is.

    """

    def __init__(self, streams: NoiseStreams, index: int) -> None:
        self._streams = streams
        self._index = index

    def normal(self, shape: tuple[int, ...]) -> F32:
        """Return the sample's next numbers."""
        return self._streams._normal_of(self._index, shape)


def streams_for(seed: Any, generator: Any, count: int, rng: str) -> NoiseStreams:
    """Return the streams of ``count`` samples.

    Args:
        seed: an int, for sample i it is seed + i; or one for each sample; None chooses one.
        generator: one or ``count`` torch generators, or objects with ``initial_seed()``; or None. Torch generators go
            on from their state, and advance.
        count: number of samples.
        rng: ``cpu`` or ``cuda``: whose numbers a seed means; a generator with a ``device`` overrides it.

    Raises:
        UsageError: a seed is out of range, or there are neither one nor ``count`` of them.

    """
    if generator is not None:
        several, generators = isinstance(generator, (list, tuple)), _listed(generator)
        if several and len(generators) != count:
            raise UsageError(f"{len(generators)} generators for {count} images: pass one, or one for each image")
        streams = [stream_of(one, rng) for one in generators]
        seeds = [stream.seed for stream in streams]
        return NoiseStreams(seeds * (1 if several else count), streams, kind="listed" if several else "shared")
    if seed is None:
        seed = secrets.randbelow(2**32)
    if isinstance(seed, (list, tuple, range)):
        if len(seed) != count:
            raise UsageError(f"{len(seed)} seeds for {count} images: pass one, or one for each image")
        seeds = [check_seed(s) for s in seed]
    else:
        first = check_seed(seed)
        seeds = [(first + i) % 2**64 for i in range(count)]
    return NoiseStreams(seeds, [generator_for(s, rng) for s in seeds], kind="own")


def generator_notes(generator: Any, rng: str) -> list[str]:
    """Return what the user should know about the generators of a request, before they are used."""
    notes = []
    streams = [stream_of(one, rng) for one in _listed(generator)]
    if any(isinstance(stream, GeneratorStream) and stream.used for stream in streams):
        notes.append(
            "generator: it had been used, and went on from there as in diffusers; the seed in the result is its "
            "initial one and does not give these images again"
        )
    devices = sorted({device for one in _listed(generator) if (device := device_of(one)) not in (None, rng)})
    if rng != "cpu" and devices:
        notes.append(f"rng={rng!r} has no effect beside a generator of the device {', '.join(map(repr, devices))}")
    return notes


def _listed(generator: Any) -> list[Any]:
    if generator is None:
        return []
    return list(generator) if isinstance(generator, (list, tuple)) else [generator]
