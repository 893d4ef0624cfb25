"""The loops of a pipeline, kept from request to request."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from ..engines.engine import Engine
from .loop import Loop, LoopShape

__all__ = ["Loops"]

_MOST = 4
"""Sets of shapes that are kept; the one unused for longest goes first."""


class Loops:
    """Lends loops; each is used by one request at a time.

    Args:
        keep: whether to keep them; not where engines are closed after each use.

    """

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._idle: OrderedDict[object, Loop] = OrderedDict()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def use(self, denoiser: Engine, controls: Sequence[Engine], shape: LoopShape, *, record: bool) -> Iterator[Loop]:
        """Lend the loop for some shapes; it is made where it is not there, or lent already."""
        key = (shape.room, tuple(shape.axes.items()), len(controls))
        with self._lock:
            loop = self._idle.pop(key, None)
            if loop is None and len(self._idle) >= _MOST:
                self._idle.popitem(last=False)[1].close()
        if loop is None:
            loop = Loop(denoiser, controls, shape, record=record)
        kept = False
        try:
            yield loop
            kept = self._keep  # not after an error: what was given to an engine may be in any state
        finally:
            if kept:
                with self._lock:
                    self._idle[key] = loop
            else:
                loop.close()

    def close(self) -> None:
        """Let all of them go."""
        with self._lock:
            while self._idle:
                self._idle.popitem()[1].close()
