"""Exports the demo and builds its plans, by the command line."""

import subprocess
import sys
from pathlib import Path

__all__ = ["built_demo", "sdengine"]


def sdengine(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of ``sdengine``; it must succeed."""
    command = [sys.executable, "-m", "sdengine.runtime", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def built_demo(engine: str, folder: Path, *options: str) -> Path:
    """Return a bundle of the demo with plans of the engine, verified against torch as far as they can be."""
    path = folder / "demo"
    sizes = ("--sizes", "128x128,128x96", "--precision", "fp16", "--batch", "1..2")
    sdengine("export", "demo", "-o", path, "--engine", engine, *sizes, "--stop-after", "graphs", "--verify", "off")
    sdengine("build", path, "--engine", engine, "--verify", "full", *options)
    return path
