"""The noise of the samples of one call: a stream of random numbers for each, or one for all."""

import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from .noise import GeneratorStream, NormalSource, check_seed, device_of, generator_for, stream_of

__all__ = ["NoiseStreams", "SampleNoise", "generator_notes", "seeds_for", "streams_for"]

F32 = NDArray[np.float32]
Kind = Literal["seeds", "generators", "one generator"]


class NoiseStreams:
    """One stream of random numbers for each sample, or one that all share.

    Attributes:
        seeds: one for each sample, for the result.
        kind: what the streams were made of: ``seeds``, where a sample's numbers do not depend on the other samples;
            ``generators``, one for each sample, used as diffusers uses such a list; ``one generator``, which all
            samples share.

    """

    def __init__(self, seeds: Sequence[int], sources: Sequence[NormalSource], *, kind: Kind) -> None:
        self.seeds = tuple(seeds)
        self.kind = kind
        self._sources = tuple(sources)
        self._unused: list[deque[F32]] = [deque() for _ in seeds]
        """With one generator: for each sample, numbers that were generated with another's and it has not used yet."""

    def normal(self, shape: tuple[int, ...]) -> F32:
        """Return the next numbers for every sample: float32 [S, *shape]."""
        if self.kind == "one generator":
            return self._sources[0].normal((len(self.seeds), *shape))
        return np.stack([source.normal(shape) for source in self._sources])

    def normal_grouped(self, groups: int, shape: tuple[int, ...]) -> F32:
        """Return the numbers for several tensors of every sample: float32 [groups, S, *shape].

        One generator gives them to the first tensor of all samples, then to the second.
        """
        if self.kind == "one generator":
            count = len(self.seeds)
            return self._sources[0].normal((groups * count, *shape)).reshape(groups, count, *shape)
        return np.stack([source.normal((groups, *shape)) for source in self._sources], axis=1)

    def normal_for_images(self, shape: tuple[int, ...], images: int, *, repeated: bool) -> F32:
        """Return the noise for encoding images: float32 [N, *shape], where N is the number of images or of samples.

        Args:
            shape: of an image's latents.
            images: how many images there are; if fewer than samples, they are repeated.
            repeated: whether diffusers encodes the images before it repeats them (inpainting), so that of a list of
                generators only the first ones advance, or after that (image-to-image).

        """
        per_image = self.kind == "one generator" or (self.kind == "generators" and repeated)
        if not per_image or images >= len(self.seeds):
            return self.normal(shape)
        if self.kind == "one generator":
            return self._sources[0].normal((images, *shape))
        return np.stack([source.normal(shape) for source in self._sources[:images]])

    def stream(self, index: int) -> "SampleNoise":
        """Return one sample's stream; with one generator, the sample's part of its numbers."""
        return SampleNoise(self, index)

    def _normal_of(self, index: int, shape: tuple[int, ...]) -> F32:
        if self.kind != "one generator":
            return self._sources[index].normal(shape)
        if not self._unused[index]:
            for queue, part in zip(self._unused, self.normal(shape), strict=True):
                queue.append(part)
        return self._unused[index].popleft()


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
        """Return the sample's next numbers, float32 of that shape."""
        return self._streams._normal_of(self._index, shape)


def streams_for(seed: Any, generator: Any, count: int, rng: str) -> NoiseStreams:
    """Return the streams of ``count`` samples.

    Args:
        seed: an int, with which sample i gets seed + i; or a list with one for each sample; or None, which chooses one.
        generator: one torch generator, or a list of ``count`` of them, or objects with ``initial_seed()``; or None.
            Torch generators continue from their state, and advance.
        count: number of samples.
        rng: ``cpu`` or ``cuda``: which of torch's generators a seed is for; a generator's own device overrides it.

    Raises:
        UsageError: a seed is out of range, or a list has not ``count`` entries.

    """
    if generator is not None:
        is_list, generators = isinstance(generator, (list, tuple)), _listed(generator)
        if is_list and len(generators) != count:
            raise UsageError(f"{len(generators)} generators for {count} images: pass one, or one for each image")
        streams = [stream_of(one, rng) for one in generators]
        seeds = [stream.seed for stream in streams]
        if is_list:
            return NoiseStreams(seeds, streams, kind="generators")
        return NoiseStreams(seeds * count, streams, kind="one generator")
    seeds = seeds_for(secrets.randbelow(2**32) if seed is None else seed, count)
    return NoiseStreams(seeds, [generator_for(s, rng) for s in seeds], kind="seeds")


def seeds_for(seed: int | Sequence[int], count: int) -> list[int]:
    """Return the seed of each of ``count`` samples: see :func:`streams_for`.

    Raises:
        UsageError: a seed is no whole number or out of range, or a list has not ``count`` entries.

    """
    if isinstance(seed, (list, tuple, range)):
        if len(seed) != count:
            raise UsageError(f"{len(seed)} seeds for {count} images: pass one, or one for each image")
        return [check_seed(s) for s in seed]
    first = check_seed(seed)
    return [(first + i) % 2**64 for i in range(count)]


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
