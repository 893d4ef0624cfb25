"""Requests to stop a running call, as ``pipe._interrupt = True`` does in diffusers."""

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["Interrupts"]


class Interrupts:
    """Which of the running calls should stop.

    A callback runs on the thread of its call, and stops only that call; another thread stops all of them.
    """

    def __init__(self) -> None:
        self._requested: dict[int, bool] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Register this thread's call while it runs; a request made before it began has no effect, as in diffusers."""
        thread = threading.get_ident()
        with self._lock:
            outer = self._requested.get(thread)
            self._requested[thread] = False
        try:
            yield
        finally:
            with self._lock:
                if outer is None:
                    del self._requested[thread]
                else:
                    self._requested[thread] = outer

    @property
    def requested(self) -> bool:
        """Whether this thread's call should stop; on a thread without a call, whether any should."""
        with self._lock:
            return self._requested.get(threading.get_ident(), any(self._requested.values()))

    @requested.setter
    def requested(self, stop: bool) -> None:
        thread = threading.get_ident()
        with self._lock:
            for running in [thread] if thread in self._requested else list(self._requested):
                self._requested[running] = stop
