"""Assembles the commands, and turns errors into a message and an exit status.

The packages that only some commands need (``sdengine.export``, ``sdengine.benchmarks``) are imported inside them: a
process that generates images loads neither.
"""

import errno
import os
import signal
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from ...engines.errors import SdengineError
from .bench import bench
from .build import build
from .bundle_info import inspect
from .cache import cache
from .console import fail
from .debug import debug
from .demo import demo
from .doctor import doctor
from .export import export
from .fetch import fetch
from .run import run
from .schedulers import schedulers
from .serve import serve

__all__ = ["main"]

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)
_INTERRUPTED, _TERMINATED = 130, 143
"""Exit status, as shells have it for Ctrl-C and for SIGTERM."""


def _app() -> typer.Typer:
    app = typer.Typer(
        name="sdengine",
        help="Compile Stable Diffusion checkpoints into engines, and generate images with them.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
        ] = False,
    ) -> None:
        pass

    for command in (demo, export, build, run, serve, bench, inspect, cache, schedulers, debug, doctor):
        app.command()(command)
    app.command(hidden=True)(fetch)
    return app


def _version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(version("sdengine"))
        raise typer.Exit


def _terminate(number: int, frame: object) -> None:
    """End as after Ctrl-C: what was begun is undone. A second signal ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    raise SystemExit(128 + number)


def _handle_signals() -> None:
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP; nohup has it ignored, and that stays so
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _output_failed(error)


def _output_failed(error: OSError) -> NoReturn:
    fail(f"standard output could not be written: {error.strerror}")
    os._exit(1)  # the interpreter would try once more


def main() -> None:
    """Run the command line.

    Exit status: 0 done, 1 failed, 2 wrong usage, 129 hung up, 130 interrupted, 143 terminated.
    """
    _handle_signals()
    if sys.stdout is None:  # a file that is opened would get its number, and what libraries print would go there
        fail("standard output is closed")
        sys.exit(2)
    try:
        try:
            _app()()
        finally:
            _flush_output()
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except SdengineError as error:
        fail(str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        fail("interrupted")
        sys.exit(_INTERRUPTED)
    except SystemExit as stopped:
        if stopped.code == _INTERRUPTED:  # typer exits so after Ctrl-C, without a message
            fail("interrupted")
        elif stopped.code == _TERMINATED:
            fail("terminated")
        raise
    except Exception as error:  # a bug, shown as a message
        if isinstance(error, OSError) and error.errno in _OUTPUT_ERRORS and error.filename is None:
            _output_failed(error)
        if os.environ.get("SDENGINE_DEBUG"):
            traceback.print_exc()
        fail(f"{type(error).__name__}: {error} (this is a bug in sdengine; SDENGINE_DEBUG=1 shows where)")
        sys.exit(1)
