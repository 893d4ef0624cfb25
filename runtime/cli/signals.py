"""How a command ends on Ctrl-C, SIGTERM and a terminal that is closed: quietly, with the status that shells give it."""

import os
import signal
import sys
from types import FrameType

__all__ = ["end_at_once", "nothing_left_to_undo", "received", "say_how_it_ended", "undo_then_end"]

_SIGNALS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": ""}  # Windows has no SIGHUP
"""By signal, what is printed: nothing where the terminal is gone."""
_HELD = (signal.SIG_DFL, signal.default_int_handler)
"""What a signal does unless the process was started to ignore it, as ``nohup`` does; that stays so."""
_received: int | None = None


def end_at_once() -> None:
    """From now on a signal ends the process at once: while modules are imported, there is nothing to undo.

    An exception would pass through the import of libraries, which may turn it into another or into a crash.
    """
    for number in _numbers():
        if signal.getsignal(number) in _HELD:
            signal.signal(number, _end)


def undo_then_end() -> None:
    """From now on a signal raises an exception, so that what was begun is undone; a second one ends at once."""
    for number in _numbers():
        if signal.getsignal(number) is _end:
            signal.signal(number, _raise)


def received() -> int | None:
    """Return the signal whose exception is under way, whatever a library made of it; None if there was none."""
    return _received


def nothing_left_to_undo() -> None:
    """From now on a signal ends the process at once, without a word: the interpreter is ending anyway."""
    for number in _numbers():
        if signal.getsignal(number) is _raise:
            signal.signal(number, signal.SIG_DFL)


def say_how_it_ended(number: int) -> None:
    """Print which signal ended the command."""
    what = _SIGNALS[signal.Signals(number).name]
    if what and sys.stderr is not None:
        from contextlib import suppress

        with suppress(OSError):  # no library prints it: one may be half imported
            os.write(2, f"error: {what}\n".encode())


def _numbers() -> list[signal.Signals]:
    return [signal.Signals[name] for name in _SIGNALS if hasattr(signal, name)]


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C. Where KeyboardInterrupt itself passes through ``exec``, Python ends the process by SIGINT at its exit."""


def _raise(number: int, frame: FrameType | None) -> None:
    global _received
    _received = number
    signal.signal(number, signal.SIG_DFL)
    if number == signal.SIGINT:
        raise _Interrupted
    raise SystemExit(128 + number)


def _end(number: int, frame: FrameType | None) -> None:
    say_how_it_ended(number)
    os._exit(128 + number)
