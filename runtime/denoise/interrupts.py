"""Asking a call that is under way to stop, as ``pipe._interrupt = True`` does in diffusers."""

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["Interrupts"]


class Interrupts:
    """Which of the calls under way have been asked to stop.

    A callback runs on the thread of its call, and asks that call alone; another thread asks all of them.
    """

    def __init__(self) -> None:
        self._asked: dict[int, bool] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Mark this thread's call as under way; what was asked before it began is forgotten, as in diffusers."""
        thread = threading.get_ident()
        with self._lock:
            outer = self._asked.get(thread)
            self._asked[thread] = False
        try:
            yield
        finally:
            with self._lock:
                if outer is None:
                    del self._asked[thread]
                else:
                    self._asked[thread] = outer

    @property
    def asked(self) -> bool:
        """Whether this thread's call, or, where it has none, any other has been asked to stop."""
        with self._lock:
            return self._asked.get(threading.get_ident(), any(self._asked.values()))

    @asked.setter
    def asked(self, stop: bool) -> None:
        thread = threading.get_ident()
        with self._lock:
            for under_way in [thread] if thread in self._asked else list(self._asked):
                self._asked[under_way] = stop
