"""Caches the embeddings of the last prompts: most requests repeat one, at least the negative prompt."""

import hashlib
from collections import OrderedDict
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from ..prompt.encoder import TextEncoderCall

__all__ = ["CachedTextEncoder"]

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


class CachedTextEncoder:
    """Calls a text encoder, but only for windows (77 tokens each) whose embeddings are not cached.

    Args:
        run: runs the network.
        entries: most windows in the cache.
        limit: most bytes of embeddings in the cache; a window of SDXL's larger encoder has 0.4 MB.

    """

    def __init__(self, run: TextEncoderCall, *, entries: int = 128, limit: int = 64 * 2**20) -> None:
        self._run = run
        self._entries = entries
        self._limit = limit
        self._cached: OrderedDict[bytes, tuple[F32, F32]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()  # of the cache only: two threads may both run a window that is not in it yet

    def __call__(self, input_ids: I64, attention_mask: I64, layer: I64, extra_embeddings: F32, /) -> tuple[F32, F32]:
        """Encode windows; see :class:`~.prompt.encoder.TextEncoderCall`. The caller may write to the result."""
        common = hashlib.sha256(layer.tobytes() + np.ascontiguousarray(extra_embeddings).tobytes()).digest()
        keys = [common + ids.tobytes() + mask.tobytes() for ids, mask in zip(input_ids, attention_mask, strict=True)]
        rows = [self._find(key) for key in keys]
        missing = [i for i, row in enumerate(rows) if row is None]
        if missing:
            hidden, pooled = self._run(input_ids[missing], attention_mask[missing], layer, extra_embeddings)
            for i, states, pool in zip(missing, hidden, pooled, strict=True):
                rows[i] = np.array(states, np.float32), np.array(pool, np.float32)
                self._keep(keys[i], rows[i])
        cached = [row for row in rows if row is not None]
        return np.stack([states for states, _ in cached]), np.stack([pool for _, pool in cached])

    def _find(self, key: bytes) -> tuple[F32, F32] | None:
        with self._lock:
            if key in self._cached:
                self._cached.move_to_end(key)
            return self._cached.get(key)

    def _keep(self, key: bytes, row: tuple[F32, F32] | None) -> None:
        if row is None or not all(np.isfinite(array).all() for array in row):
            return  # not cached: the next run, perhaps in another precision, may succeed
        with self._lock:
            if key not in self._cached:
                self._bytes += _size(row)
            self._cached[key] = row
            while len(self._cached) > self._entries or self._bytes > self._limit:
                self._bytes -= _size(self._cached.popitem(last=False)[1])


def _size(row: tuple[F32, F32]) -> int:
    return sum(array.nbytes for array in row)
