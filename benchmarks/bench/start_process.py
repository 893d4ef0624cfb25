"""Starts a fresh process for a job, reads its messages, and ends it in any case."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import IO

import msgspec

from ...engines.errors import EngineError
from .process_messages import Done, ProcessJob, Tick

__all__ = ["START", "failure_of", "run_in_fresh_process"]

START = (
    "import time; first_line = time.perf_counter(); "
    "import sdengine.runtime.generate; imported = time.perf_counter(); "
    "from sdengine.benchmarks.bench.fresh_process import serve; serve(first_line, imported)"
)
"""The process's whole program: the clock starts before the first import of ours.

Everything that generating needs is imported first; a user's program does most of that while engines open. Otherwise it
would be hidden in what the benchmark itself imports.
"""

_ANSWERS = msgspec.json.Decoder(Tick | Done)
_LINES = 12


def run_in_fresh_process(job: ProcessJob, tick: Callable[[str], None] = lambda label: None) -> Done:
    """Run a job.

    Args:
        job: the job; its ``started`` is set here.
        tick: called with a label after each call of the pipeline.

    Raises:
        EngineError: the process failed; names the engine and quotes what it printed.

    """
    with tempfile.TemporaryFile() as complaints:
        done, status = _run(job, tick, complaints)
        if status or done is None:
            raise EngineError(failure_of(job.engine, status, complaints))
        return done


def failure_of(engine: str, status: int, complaints: IO[bytes]) -> str:
    """Return what to say of a process that failed, with the end of what it printed."""
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()[-_LINES:]
    ending = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"measuring {engine} failed with {ending}: " + ("\n".join(lines) or "it printed nothing")


def _run(job: ProcessJob, tick: Callable[[str], None], complaints: IO[bytes]) -> tuple[Done | None, int]:
    """Return the last answer and the exit status; the process is gone then, whatever happens."""
    done = None
    started = time.perf_counter()
    command = [sys.executable, "-c", START]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as questions:  # it died; its status says so
                questions.write(msgspec.json.encode(msgspec.structs.replace(job, started=started)))
            for line in process.stdout:
                answer = _ANSWERS.decode(line)
                if isinstance(answer, Done):
                    done = answer
                else:
                    tick(answer.label)
            return done, process.wait()
        except BaseException:
            process.kill()
            raise
