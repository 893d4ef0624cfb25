"""What every contender's process does: read its job, time calls, write what came out, print one line of JSON.

Runs in environments of other people's packages: it needs numpy and nothing of ours.
"""

import json
import resource
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

__all__ = ["guided", "work"]

_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "onnxruntime",
    "openvino",
    "optimum",
    "optimum-onnx",
    "optimum-intel",
)
_MORE = ("stable-diffusion-cpp-python",)


def guided(rows: Any) -> Any:
    """Combine the predictions of two rows as classifier-free guidance at 7.5 does, [2, C, h, w] -> [C, h, w]."""
    rows = np.asarray(rows, np.float32)
    return -6.5 * rows[0] + 7.5 * rows[1]


def work(open_contender: Callable[[dict[str, Any]], Callable[[], Any]]) -> None:
    """Run the job named on the command line.

    Args:
        open_contender: given the job, returns a call; that returns an array to compare. ``job["inputs"]`` holds the
            arrays of a step; ``job["picture"]`` the settings of a picture; one of them is there. A call that times
            itself, because its library draws whole pictures only, leaves seconds in ``job["seconds"]``.

    """
    with open(sys.argv[1], encoding="utf-8") as file:
        job = json.load(file)
    if job.get("inputs"):
        job["inputs"] = dict(np.load(job["inputs"]))
    try:
        begin = time.perf_counter()
        call = open_contender(job)
        opened = time.perf_counter() - begin
        call()  # warm-up: some compile here
        first = time.perf_counter() - begin
        walls, cpus, output = [], [], None
        for _ in range(job["repeats"]):
            wall, cpu = time.perf_counter(), time.process_time()
            output = call()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}))
        return
    np.save(job["output"], output)
    found = {}
    for name in (*_PACKAGES, *_MORE):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {"open": opened, "first": first, "wall": job.get("seconds") or walls, "cpu": cpus, "peak_rss_mb": peak}
    print(json.dumps({**told, "versions": found}))
