"""The stream of a ``torch.Generator``: it goes on from the generator's state, and advances the generator.

torch is not imported: all that is used is the generator's own ``device``, ``initial_seed``, ``get_state`` and
``set_state``. States are laid out as in ATen's ``CPUGeneratorImpl.cpp`` and ``cuda/CUDAGeneratorImpl.cpp``:

* CPU, 5056 bytes: seed (uint64 at 0), how many numbers are left of a block plus one (int32 at 8), which one is next
  (uint64 at 16), the 624 words of MT19937 (uint64 each from 24), and the second number of a pair that has not been
  used (float64 at 5024; int32 at 5040 says whether there is one).
* CUDA, 16 bytes: seed and how many words of Philox's stream each thread has used, both uint64.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....engines.errors import UsageError
from .mersenne import Generator
from .philox import PhiloxGenerator
from .seed import check_seed

__all__ = ["GeneratorStream", "device_of", "stream_of"]

_WORDS = 624  # of MT19937
_CPU_BYTES = (5056, 5048)  # since torch 1.0, and before
_CUDA_BYTES = 16
_WORDS_PER_CALL = 4  # of one Philox evaluation


def stream_of(generator: Any, rng: str) -> "GeneratorStream | Generator | PhiloxGenerator":
    """Return the stream of a torch generator, or of anything that has an initial seed.

    Args:
        generator: an object with ``initial_seed()``; with ``get_state()`` and ``set_state()``, its place in the stream
            counts. Its ``device`` says whether its numbers are the CPU's or CUDA's.
        rng: which they are for an object without ``device``.

    Raises:
        UsageError: it has no ``initial_seed``, or its numbers are not known here.

    """
    read = getattr(generator, "initial_seed", None)
    if read is None:
        raise UsageError(f"a generator needs initial_seed(); {type(generator).__name__} has none. Or give seed")
    kind = device_of(generator) or rng
    sources: dict[str, type[Generator] | type[PhiloxGenerator]] = {"cpu": Generator, "cuda": PhiloxGenerator}
    if kind not in sources:
        raise UsageError(f"the numbers of a generator of the device {kind!r} are not known: give one of cpu or cuda")
    source = sources[kind](check_seed(read()))
    if hasattr(generator, "get_state") and hasattr(generator, "set_state"):
        return GeneratorStream(generator, source)
    return source


def device_of(generator: Any) -> str | None:
    """Return ``cpu``, ``cuda``, ...: the device of a generator; None if it has none."""
    device = getattr(generator, "device", None)
    return None if device is None else str(getattr(device, "type", device)).partition(":")[0]


class GeneratorStream:
    """The stream of a generator with a state, read before and written after every use, as torch itself does.

    Args:
        generator: the caller's.
        source: numbers of its kind.

    Raises:
        UsageError: its state is laid out in another way.

    """

    def __init__(self, generator: Any, source: Generator | PhiloxGenerator) -> None:
        self.seed = source.seed
        self._generator = generator
        self._source = source
        self._state()

    @property
    def used(self) -> bool:
        """Whether numbers have been taken since the generator got its seed."""
        self._load(self._state()[1])
        return self._source.used

    def normal(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """Return the next standard normal numbers, in C order; float32."""
        state, data = self._state()
        self._load(data)
        normals = self._source.normal(shape)
        self._store(data)
        self._generator.set_state(state)
        return normals

    def _state(self) -> tuple[Any, NDArray[np.uint8]]:
        """Return the generator's state, a tensor, and its bytes, which are the same memory."""
        state = self._generator.get_state()
        data: NDArray[np.uint8] = state.numpy()
        sizes = _CPU_BYTES if isinstance(self._source, Generator) else (_CUDA_BYTES,)
        if data.dtype != np.uint8 or data.size not in sizes:
            raise UsageError(f"a generator's state of {data.nbytes} bytes is not known here: give seed")
        return state, data

    def _load(self, data: NDArray[np.uint8]) -> None:
        if isinstance(self._source, PhiloxGenerator):
            seed, words = data.view(np.uint64).tolist()
            self._source.seed, self._source.calls = seed, words // _WORDS_PER_CALL
            return
        left, following = int(data[8:12].view(np.int32)[0]), int(data[16:24].view(np.uint64)[0])
        words = data[24 : 24 + 8 * _WORDS].view(np.uint64).astype(np.uint32)
        second = float(data[5024:5032].view(np.float64)[0]) if data[5040:5044].view(np.int32)[0] else None
        self._source.seed = int(data[:8].view(np.uint64)[0])
        # one left means that the block has been used up, or that there is none yet
        self._source.place = (words, _WORDS if left == 1 else following, second)

    def _store(self, data: NDArray[np.uint8]) -> None:
        if isinstance(self._source, PhiloxGenerator):
            data.view(np.uint64)[1] = self._source.calls * _WORDS_PER_CALL
            return
        words, following, second = self._source.place
        data[8:12].view(np.int32)[0] = _WORDS + 1 - following
        data[16:24].view(np.uint64)[0] = following
        data[24 : 24 + 8 * _WORDS].view(np.uint64)[:] = words
        data[5024:5032].view(np.float64)[0] = 0.0 if second is None else second
        data[5040:5044].view(np.int32)[0] = second is not None
