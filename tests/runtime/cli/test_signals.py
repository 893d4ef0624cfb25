"""Ctrl-C, SIGTERM and a terminal that is closed end every command quietly, also while its modules are imported."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

WORDS = {signal.SIGINT: "error: interrupted\n", signal.SIGTERM: "error: terminated\n", signal.SIGHUP: ""}

IMPORTING = """
import builtins, os, signal, sys

number, before, module, *sys.argv[1:] = sys.argv[1:]
# Whatever the tests were started with:
signal.signal(int(number), signal.Handlers(int(before)) if before != "2" else signal.default_int_handler)
real = builtins.__import__

def importing(name, *args, **options):
    if name == module:
        builtins.__import__ = real
        os.kill(os.getpid(), int(number))
    return real(name, *args, **options)

builtins.__import__ = importing
from sdengine.runtime.cli import main
main()
"""
"""Runs a command, and sends itself a signal as a module is imported."""

CONVERTED = """
import os, signal, sys
from sdengine.engines.errors import SdengineError
from sdengine.runtime.cli import main
from sdengine.runtime.pipelines import bundle_cache

number = int(sys.argv[2])

def stopped():
    try:
        exec("os.kill(os.getpid(), number)")  # where KeyboardInterrupt itself leaves this, python -m ends by SIGINT
    except BaseException:
        pass
    raise SdengineError("a library is not installed")

bundle_cache.cached_bundles = stopped
if number == signal.SIGINT:
    signal.signal(number, signal.default_int_handler)  # whatever the tests were started with
sys.argv.pop()
main()
"""


def _done(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def _importing(number: int, before: object, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return _done(IMPORTING, int(number), before, module, *arguments)


@pytest.mark.parametrize("number", WORDS)
@pytest.mark.parametrize("module", ["typer", "rich.console", "bench"])
def test_a_signal_while_the_commands_are_imported(module: str, number: signal.Signals) -> None:
    before = 2 if number == signal.SIGINT else int(signal.SIG_DFL)
    done = _importing(number, before, module, "cache")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", WORDS[number])


@pytest.mark.parametrize("number", WORDS)
def test_what_the_process_was_started_to_ignore_is_ignored(number: signal.Signals) -> None:
    done = _importing(number, int(signal.SIG_IGN), "typer", "schedulers")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", WORDS)
def test_a_signal_that_a_library_turns_into_an_error(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "converted.py").write_text(CONVERTED)
    command = [sys.executable, "-m", "converted", "cache", str(int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", WORDS[number])
