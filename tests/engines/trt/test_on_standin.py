"""Runs on_standin/ in a process of its own, with a stand-in for libcuda.so.1 on the library path.

A process of its own, because cuda-bindings loads the driver once, and the other tests want to find none.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cuda.bindings.driver")

FOLDER = Path(__file__).parent / "on_standin"
COMPILER = shutil.which("cc")


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler for the stand-in")
def test_plans_run_on_the_standin(tmp_path: Path) -> None:
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
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(FOLDER)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
