"""What a service asks: images per second for clients at once, and memory and cores of several worker processes."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import IO, Self, TypeVar

import msgspec
import numpy as np

from ...engines.bundle.bundle import Bundle
from ...engines.errors import EngineError
from ...engines.host_memory import free_host_memory
from .figure import Absent
from .process_messages import LoadDone, LoadJob, LoadReady
from .report import LoadCase, LoadFigures
from .settings import Settings, opening_options
from .start_process import failure_of

__all__ = ["images_of_a_client", "load_calls", "load_cases"]

_PROGRAM = "from sdengine.benchmarks.bench.load_process import main; main()"
_CALLS = 3
"""Most images of each client; the settings' ``runs`` if those are fewer."""
_ANSWERS = msgspec.json.Decoder(LoadReady | LoadDone)
_MB = 1e6
_Answer = TypeVar("_Answer", LoadReady, LoadDone)


def load_calls(settings: Settings) -> int:
    """Count the cases that are measured."""
    return len(settings.clients) + sum(workers > 1 for workers in settings.workers)


def images_of_a_client(settings: Settings) -> int:
    """Return how many images each client asks for, one after the other."""
    return min(_CALLS, settings.runs)


def load_cases(
    bundle: Bundle, engine: str, settings: Settings, *, on_cpu: bool, tick: Callable[[str], None]
) -> list[LoadCase]:
    """Measure one worker process with each number of clients, then each number of worker processes.

    Args:
        bundle: what is measured.
        engine: ``NAME`` or ``NAME:PRECISION``.
        settings: how; see :class:`~.settings.Settings`.
        on_cpu: whether the engine runs on the cores, which several workers then share.
        tick: called with a label after each case.

    Raises:
        EngineError: a process failed; quotes what it printed.

    """
    job = LoadJob(
        bundle=str(bundle.path),
        engine=engine,
        settings=settings,
        clients=settings.clients,
        calls=images_of_a_client(settings),
        threads=settings.threads,
    )
    cases = _measured(job, 1, tick) if settings.clients else []
    most = max((f.memory_mb or 0.0 for case in cases if isinstance(f := case.measured, LoadFigures)), default=0.0)
    for workers in (workers for workers in settings.workers if workers > 1):
        free = free_host_memory()
        if free is not None and workers * most * _MB > free:
            needed = f"they would take {workers * most:.0f} MB, and {free / _MB:.0f} MB are free"
            cases.append(LoadCase(workers=workers, clients=workers, threads=None, measured=Absent(reason=needed)))
            tick(f"{workers} workers")
            continue
        shares = on_cpu and settings.threads is None and "threads" in opening_options(engine, _with_threads(settings))
        threads = max(1, len(os.sched_getaffinity(0)) // workers) if shares else settings.threads
        cases += _measured(msgspec.structs.replace(job, clients=[1], threads=threads), workers, tick)
    return cases


def _with_threads(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, threads=1)


def _measured(job: LoadJob, workers: int, tick: Callable[[str], None]) -> list[LoadCase]:
    """Run some processes through a job, in step with each other."""
    cases = []
    with contextlib.ExitStack() as running:
        complaints = [running.enter_context(tempfile.TemporaryFile()) for _ in range(workers)]
        processes = [running.enter_context(_LoadProcess(job, file)) for file in complaints]
        for clients in job.clients:
            for _ in range(2):  # warm; then at the end, all of them still there
                for process in processes:
                    process.expect(LoadReady)
                for process in processes:
                    process.tell()
            answers = [process.expect(LoadDone) for process in processes]
            for process in processes:
                process.tell()
            cases.append(_case(job, workers, clients, answers))
            tick(f"{workers} workers, {clients} clients each" if workers > 1 else f"{clients} clients")
    return cases


def _case(job: LoadJob, workers: int, clients: int, answers: Sequence[LoadDone]) -> LoadCase:
    seconds = max(a.ended for a in answers) - min(a.started for a in answers)
    latencies = np.concatenate([a.latencies for a in answers])
    p50, p90 = np.percentile(latencies, [50, 90])
    known = [a.memory for a in answers if isinstance(a.memory, float)]
    return LoadCase(
        workers=workers,
        clients=workers * clients,
        threads=job.threads,
        measured=LoadFigures(
            images_per_s=round(len(latencies) / seconds, 4),
            p50_ms=round(float(p50), 4),
            p90_ms=round(float(p90), 4),
            cores=round(sum(a.cpu_s for a in answers) / seconds, 4),
            memory_mb=round(sum(known), 4) if len(known) == len(answers) else None,
        ),
    )


class _LoadProcess:
    """One worker process; it is gone when the body has ended, whatever happens."""

    def __init__(self, job: LoadJob, complaints: IO[bytes]) -> None:
        self._job = job
        self._complaints = complaints
        command, pipe = [sys.executable, "-c", _PROGRAM], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=complaints, bufsize=0)
        self._write(msgspec.json.encode(job) + b"\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()  # it has nothing more to do
        if kind is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def tell(self) -> None:
        """Let it go on."""
        self._write(b"go\n")

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; reading from it says why
            self._process.stdin.write(line)

    def expect(self, kind: type[_Answer]) -> _Answer:
        """Return its next answer.

        Raises:
            EngineError: it failed.

        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = _ANSWERS.decode(line) if line else None
        if not isinstance(answer, kind):
            raise EngineError(failure_of(self._job.engine, self._process.wait(), self._complaints))
        return answer
