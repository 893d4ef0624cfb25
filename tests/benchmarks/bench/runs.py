"""``sdengine bench`` as a user types it, and one measured report that all tests share."""

import copy
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ...bundles import bundle_of

__all__ = ["ENVIRONMENT", "MEASURE", "bench", "doctored", "figures_in", "measured", "scaled"]

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
MEASURE = (
    "--engine", "onnxruntime", "--engine", "openvino:fp32", "--size", "48x40", "--steps", "2", "--batch", "1",
    "--batch", "2", "--rounds", "2", "--runs", "3", "--prompt", "a cat & a <dog>", "--clients", "3", "--workers", "1",
)  # fmt: skip


def bench(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdengine.runtime", "bench", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env=ENVIRONMENT, cwd=folder
    )


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report, measured once for all processes of a test run."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    report = shared / "report"
    with (shared / "report.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not report.exists():
            done = bench(bundle_of("sdxl"), *MEASURE, "--report", report)
            assert done.returncode == 0, done.stderr
            (shared / "printed.txt").write_text(done.stdout)
    return report


def figures_in(value: Any) -> list[dict[str, Any]]:
    """Return every measured figure anywhere in a report."""
    if isinstance(value, dict):
        if value.get("kind") == "figure":
            return [value]
        return [figure for inner in value.values() for figure in figures_in(inner)]
    return [figure for inner in value for figure in figures_in(inner)] if isinstance(value, list) else []


def scaled(figures: list[dict[str, Any]], factor: float) -> None:
    """Multiply samples and percentiles, as if everything had taken so much longer."""
    for figure in figures:
        figure["rounds"] = [[round(sample * factor, 4) for sample in samples] for samples in figure["rounds"]]
        for quantile in ("p50", "p90", "p99"):
            figure[quantile] *= factor


def doctored(report: Path, target: Path, change: Any) -> Path:
    """Write a changed copy of a report."""
    copied = copy.deepcopy(json.loads((report / "report.json").read_text()))
    change(copied)
    target.write_text(json.dumps(copied))
    return target
