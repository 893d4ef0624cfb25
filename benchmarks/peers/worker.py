"""What every contender's process does: read its job, time calls, write what came out and what it took.

Runs in environments of other people's packages: it needs numpy and nothing of ours.
"""

import json
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from other_work import OtherWork

__all__ = ["guided", "tell", "work"]

_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "onnxruntime",
    "openvino",
    "optimum",
    "optimum-onnx",
    "optimum-intel",
    "stable-diffusion-cpp-python",
)


def guided(rows: Any) -> Any:
    """Combine the predictions of two rows as classifier-free guidance at 7.5 does, [2, C, h, w] -> [C, h, w]."""
    rows = np.asarray(rows, np.float32)
    return -6.5 * rows[0] + 7.5 * rows[1]


def tell(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Read the job that the command line names, and write what ``answer`` makes of it, or the error."""
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    told = job["told"]
    try:
        answered = answer(job)
    except Exception as error:
        traceback.print_exc()
        answered = {"error": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"}
    Path(told).write_text(json.dumps(answered), encoding="utf-8")


def work(
    open_contender: Callable[[dict[str, Any]], Callable[[], Any]],
    export: Callable[[dict[str, Any], Path], None] | None = None,
) -> None:
    """Run the job named on the command line.

    Args:
        open_contender: given the job, returns a call; that returns an array to compare. ``job["inputs"]`` holds the
            arrays of a step, ``job["image"]`` the settings of an image; one of them is there, or both where only
            images can be drawn: such a call leaves what it timed in ``job["timed"]`` and is called once.
        export: makes what ``open_contender`` finds at ``job["exported"]``, if it needs that.

    """

    def answer(job: dict[str, Any]) -> dict[str, Any]:
        if job.get("export"):
            assert export is not None, "nothing is to be exported here"
            export(job, Path(job["export"]))
            return {}
        if job.get("inputs"):
            job["inputs"] = dict(np.load(job["inputs"]))
        return _timed(open_contender, job)

    tell(answer)


def _timed(open_contender: Callable[[dict[str, Any]], Callable[[], Any]], job: dict[str, Any]) -> dict[str, Any]:
    other, begin = OtherWork(), time.perf_counter()
    call = open_contender(job)
    output = call()  # warm-up: some compile here
    opened = time.perf_counter() - begin
    timed = job.get("timed")
    if timed is None:
        timed, other = {"wall": [], "cpu": []}, OtherWork()
        end = time.perf_counter() + job["seconds"]
        while len(timed["wall"]) < job["repeats"] and (not timed["wall"] or time.perf_counter() < end):
            wall, cpu = time.perf_counter(), time.process_time()
            output = call()
            timed["wall"].append(time.perf_counter() - wall)
            timed["cpu"].append(time.process_time() - cpu)
    told = {**timed, "other": other.share(), "open": opened, "peak_rss_mb": _peak_mb(), "versions": _versions()}
    np.save(job["output"], output)
    return told


def _peak_mb() -> float:
    """Of this process alone: what ``getrusage`` says can be that of the one that started it."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
