"""Ctrl-C while a library calls back."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from .messages import Messages

__all__ = ["interrupts_stop"]

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextlib.contextmanager
def interrupts_stop(messages: Messages) -> Iterator[None]:
    """Put what a signal's handler raises in the block into ``messages.stopped_by``, for the caller to raise.

    Python runs the handler when the library next calls a function of ours, a logger's or a monitor's, and the library
    would print the exception and go on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    held: dict[signal.Signals, tuple[Any, Any]] = {}

    def hold(handler: Callable[[int, FrameType | None], Any]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            try:
                handler(number, frame)
            except BaseException as error:
                messages.stopped_by = error

        return handle

    for number in (signal.Signals[name] for name in _SIGNALS if hasattr(signal, name)):
        handler = signal.getsignal(number)
        if callable(handler):
            ours = hold(handler)
            signal.signal(number, ours)
            held[number] = (handler, ours)
    try:
        yield
    finally:
        for number, (handler, ours) in held.items():
            if signal.getsignal(number) is ours:  # a handler may set another one, as for a second Ctrl-C
                signal.signal(number, handler)
