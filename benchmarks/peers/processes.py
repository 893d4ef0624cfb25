"""Processes: one at a time, watched, and gone with all their children when they end or this one does."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["ProcessError", "Told", "run", "run_job"]

Told = dict[str, Any]

_LEAST_FREE_MB = 700  # the system would start to kill below that, and not always the right one
_LEAST_DISK_MB = 4000
_LONGEST_S = 3600


class ProcessError(Exception):
    """A process ended with an error, or had to be stopped; the message is its last line, or why."""


def run(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a command, what it prints going into ``log``.

    Raises:
        ProcessError: it failed, took too long, or the machine was running out of memory.

    """
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment, start_new_session=True)
    try:
        _wait(process)
    finally:
        with contextlib.suppress(ProcessLookupError):  # those it started, too: compilers, torch's workers
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        raise ProcessError(f"ended with status {process.returncode}: {lines[-1][:200]}")


def run_job(command: list[str], job: Mapping[str, Any], log: Path) -> Told:
    """Run a script that uses :mod:`worker` and return what it tells; what goes wrong is told as ``error``."""
    told, file = log.with_suffix(".told.json"), log.with_suffix(".job.json")
    told.unlink(missing_ok=True)
    file.write_text(json.dumps({**job, "told": str(told)}), encoding="utf-8")
    try:
        run([*command, str(file)], log)
    except ProcessError as error:
        if not told.exists():  # some libraries fail when their process ends, after all is told
            return {"error": str(error)}
    answer: Told = json.loads(told.read_text(encoding="utf-8"))
    return answer


def _wait(process: "subprocess.Popen[bytes]") -> None:
    begin = time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        free = _megabytes("/proc/meminfo", "MemAvailable")
        if free < _LEAST_FREE_MB:
            used = _megabytes(f"/proc/{process.pid}/status", "VmRSS")
            raise ProcessError(f"stopped at {used:.0f} MB, when the machine had {free:.0f} MB left")
        disk = shutil.disk_usage(__file__).free / 2**20
        if disk < _LEAST_DISK_MB:
            raise ProcessError(f"stopped when the disk had {disk:.0f} MB left")
        if time.monotonic() - begin > _LONGEST_S:
            raise ProcessError(f"stopped after {_LONGEST_S} s")


def _megabytes(file: str, name: str) -> float:
    with open(file, encoding="ascii") as lines:
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)
