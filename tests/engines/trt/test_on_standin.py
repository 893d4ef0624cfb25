"""Runs on_standin/, and the suite for GPUs, in processes of their own, with a stand-in for libcuda.so.1.

Of their own, because cuda-bindings loads the driver once, and the other tests want to find none.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cuda.bindings.driver")

HERE = Path(__file__).parent
FOLDER = HERE / "on_standin"
COMPILER = shutil.which("cc")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler for the stand-in")


def passed_on_standin(tmp_path: Path, *arguments: str) -> str:
    assert COMPILER is not None
    library = tmp_path / "libcuda.so.1"
    subprocess.run(
        [COMPILER, "-shared", "-fPIC", "-O1", "-w", "-Wl,-soname,libcuda.so.1", "-o", library, FOLDER / "cuda.c"],
        check=True,
    )
    environment = os.environ | {
        "SDENGINE_STANDIN": "1",
        "LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    return done.stdout


def test_plans_run_on_the_standin(tmp_path: Path) -> None:
    passed_on_standin(tmp_path, str(FOLDER))


@pytest.mark.slow
def test_the_suite_for_gpus_runs_on_the_standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDENGINE_GPU_REPORT", str(tmp_path / "report"))
    said = passed_on_standin(tmp_path, "-m", "gpu", "-rs", str(HERE.parents[1] / "gpu"))
    assert "nvidia-smi is not here" not in said
    assert "PSNR to torch" in (tmp_path / "report" / "report.json").read_text()
