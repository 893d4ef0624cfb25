"""Outputs of `run`: what cannot be written is said before anything is drawn, and everything is written whole."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ...bundles import bundle_of

RUN = [sys.executable, "-m", "sdengine.runtime", "run"]
SMALL = ["--steps", "1", "--seed", "1", "--height", "32", "--width", "32", "--engine", "onnxruntime"]


def _run(folder: Path, *arguments: str, before: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [*RUN, str(bundle_of("sd1")), "a star", *SMALL, *arguments]
    if before:
        command = ["sh", "-c", f'{before}; exec "$@"', "sh", *command]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, env=os.environ | environment, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x" * 300 + ".png"], "cannot be written: File name too long"),
        (["-o", "x" * 250 + ".png", "--images", "2"], "cannot be written: File name too long"),
        (["-o", "x.png", "--images", "2"], "x-2.png is a folder; name a file in it"),
        (["-o", ""], "--output '.' names no file"),
        (["-o", "pipe.png"], "pipe.png is no regular file and is not replaced"),
        (["-o", "pipe.png/x.png"], "pipe.png is no folder"),
        (["-o", "x.npy"], "unknown image format '.npy'"),
        (["-o", "x.png", "--output-type", "np"], "x.png: --output-type np writes .npy"),
        (["-o", "pipe.png/x.npy", "--output-type", "np"], "pipe.png is no folder"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "x-2.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    done = _run(tmp_path, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert sorted(f.name for f in tmp_path.iterdir()) == ["pipe.png", "x-2.png"], "nothing was drawn"


def test_the_longest_names_that_there_are_can_be_written(tmp_path: Path) -> None:
    done = _run(tmp_path, "-o", "x" * 251 + ".png")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_standard_output(tmp_path: Path) -> None:
    done = _run(tmp_path, "--json", before="exec >/dev/full")
    assert done.returncode == 2
    assert "standard output cannot be written to: No space left on device" in done.stderr
    assert list(tmp_path.iterdir()) == []
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m sdengine.runtime doctor --json >/dev/full"], capture_output=True
    )
    assert done.returncode == 1
    assert b"standard output could not be written: No space left on device" in done.stderr


def test_a_closed_standard_output(tmp_path: Path) -> None:
    done = _run(tmp_path, before="exec >&-")
    assert done.returncode == 2
    assert done.stderr == "error: standard output is closed\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["-o", "x.png"], ["-o", "x.npy", "--output-type", "np"]])
def test_a_full_disk_leaves_nothing_half(tmp_path: Path, arguments: list[str]) -> None:
    name = arguments[1]
    (tmp_path / name).write_bytes(b"the old one")
    done = _run(tmp_path, *arguments, before="ulimit -f 1")
    assert done.returncode == 1
    assert f"{name} could not be written: File too large" in done.stderr
    assert [f.name for f in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"the old one"
    assert _run(tmp_path, *arguments).returncode == 0
    if name.endswith(".npy"):
        assert np.load(tmp_path / name).shape == (1, 32, 32, 3)


def test_no_columns(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sdengine.runtime", "inspect", str(bundle_of("sd1"))]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "0"}, check=True)
    assert "Components" in done.stdout


def test_damage_is_exit_status_1_and_one_line(tmp_path: Path) -> None:
    done = _run(tmp_path, "--verify", "sometimes")
    assert done.returncode == 2
    done = subprocess.run([*RUN, str(tmp_path), "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "has no manifest.json" in done.stderr
