"""How long a pipeline may be used: not after it is closed, and not in a process that was forked from its own."""

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

from ..engines.errors import UsageError

__all__ = ["Life"]

_CLOSED = "this pipeline is closed; open the bundle again with Pipeline.load"
_FORKED = (
    "this pipeline was opened before the process forked, and the threads of its engines are in the other process; "
    "open the bundle in this process, or start processes with 'spawn'"
)


class Life:
    """Counts running calls. After :meth:`close` none begins; those that are running end first.

    Args:
        release: releases what calls use; called once, when no call uses it any more.
        held: objects that a forked process must not release: it would wait for threads that it does not have.

    """

    def __init__(self, release: Callable[[], None], *held: object) -> None:
        self._release = release
        self._held = held
        self._changed = threading.Condition()
        self._threads: list[int] = []
        self._ended: str | None = None
        self._exits = False
        self._released = False
        _ALL.add(self)

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Count a call while the body runs.

        Raises:
            UsageError: the pipeline is closed, or belongs to another process.

        """
        with self._changed:
            thread = threading.get_ident()  # a generator may be closed by another
            if self._exits and thread != threading.main_thread().ident:
                raise SystemExit  # ends the thread, as the interpreter is about to do
            if self._ended is not None:
                raise UsageError(self._ended)
            self._threads.append(thread)
        try:
            yield
        finally:
            with self._changed:
                self._threads.remove(thread)
                self._changed.notify_all()
            self._release_if_unused()

    def close(self) -> None:
        """Let no call begin any more; wait for running ones, except the caller's own, and release what they used."""
        with self._changed:
            self._ended = self._ended or _CLOSED
            while self._threads and threading.get_ident() not in self._threads:
                self._changed.wait()
        self._release_if_unused()

    def _end_with_program(self) -> None:
        """Stop the calls of threads that the interpreter does not wait for, and wait until they have left the engines.

        The interpreter would end such a thread when its engine returns, inside C++, which aborts the process.
        """
        own = threading.get_ident()
        with self._changed:
            self._ended, self._exits = self._ended or _CLOSED, True
            for thread in set(self._threads) - {own}:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(SystemExit))
            self._changed.wait_for(lambda: not set(self._threads) - {own}, _LONGEST_CALL_S)

    def _release_if_unused(self) -> None:
        with self._changed:
            if self._ended is None or self._threads or self._released:
                return
            self._released = True
        self._release()

    def _forked(self) -> None:
        """Become unusable in the child, and never release there what has threads in the parent."""
        self._changed = threading.Condition()  # another thread may have held the old one
        self._threads.clear()
        self._ended, self._exits, self._released = _FORKED, False, True
        for thing in self._held:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_ALL: "weakref.WeakSet[Life]" = weakref.WeakSet()


_LONGEST_EXIT_S = 5.0
_LONGEST_CALL_S = 10.0
"""How long the end of the program waits for an evaluation that has begun, or for a callback that does not return."""
_in_child = False


def _after_fork() -> None:
    global _in_child
    used = list(_ALL)
    for life in used:
        life._forked()
    if used and sys.platform == "linux":
        _in_child = True
        # ONNX Runtime's static destructors wait for its threads, too: end before they run. ``on_exit`` gives its
        # function the status, and calls what was registered last first.
        libc = ctypes.CDLL(None)
        if hasattr(libc, "on_exit"):
            libc.on_exit(libc._exit, None)


def _before_exit() -> None:
    if _in_child:  # end even if OpenVINO's thread-local destructors, which run before all else, hang
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _LONGEST_EXIT_S)
    for life in list(_ALL):
        life._end_with_program()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_before_exit)
