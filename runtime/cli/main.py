"""Runs the command line, and turns errors into a message and an exit status.

Until signals are handled nothing but the standard library is imported, so that they find no import under way.
"""

import errno
import os
import sys

from .signals import end_at_once, nothing_left_to_undo, received, say_how_it_ended, undo_then_end

__all__ = ["main"]

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)


def main() -> None:
    """Run the command line.

    Exit status: 0 done, 1 failed, 2 wrong usage, 129 hung up, 130 interrupted, 143 terminated.
    """
    end_at_once()
    if sys.stdout is None:  # a file that is opened would get its number, and what libraries print would go there
        _fail("standard output is closed")
        sys.exit(2)
    from .commands import app

    command = app()
    undo_then_end()
    try:
        try:
            command()
        finally:
            _flush_output()
    except BaseException as error:
        nothing_left_to_undo()
        completed = isinstance(error, SystemExit) and not error.code
        number = received()
        if number is not None and not completed:
            say_how_it_ended(number)
            sys.exit(128 + number)
        if isinstance(error, SystemExit):
            raise
        sys.exit(_status(error))


def _status(error: BaseException) -> int:
    """Print what went wrong; return the exit status."""
    if isinstance(error, BrokenPipeError):  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    from ...engines.errors import SdengineError

    if isinstance(error, SdengineError):
        _fail(str(error))
        return error.exit_status
    if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS and error.filename is None:
        _output_failed(error)
    if os.environ.get("SDENGINE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    _fail(f"{type(error).__name__}: {error} (this is a bug in sdengine; SDENGINE_DEBUG=1 shows where)")
    return 1


def _fail(message: str) -> None:
    from .console import fail

    fail(message)


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _output_failed(error)


def _output_failed(error: OSError) -> None:
    _fail(f"standard output could not be written: {error.strerror}")
    os._exit(1)  # the interpreter would try once more
