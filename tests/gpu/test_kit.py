"""The acceptance kit runs where there is no GPU, with tiny sizes: sections, limits and report."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .kit.__main__ import main
from .kit.sections import SECTIONS

ROOT = Path(__file__).parents[2]


def kit(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "tests.gpu.kit", "--out", str(folder), "--device", "cpu", "--scale", "tiny"]
    done = subprocess.run([*command, "--no-compile", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == "" or "Traceback" not in done.stderr, done.stderr
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return done.returncode, report


@pytest.mark.slow
def test_everything_that_needs_no_gpu_is_done(tmp_path: Path) -> None:
    status, report = kit(tmp_path, "--minutes", "30", "--sections", "device,sdxl,engines")
    assert status == 0, (tmp_path / "report.md").read_text()
    states = {section["name"]: section["state"] for section in report["sections"]}
    assert states == {"device": "not possible here", "sdxl": "done", "engines": "not possible here"}
    lines = {section["name"]: section["lines"] for section in report["sections"]}["sdxl"]
    drawn = {line["contender"]: line for line in lines if line.get("runs")}
    assert set(drawn) == {"diffusers", "sdengine-off", "sdengine-step", "sdengine-loop"}
    assert all(line["holds"] for line in lines if "check" in line)
    assert "| diffusers |" in (tmp_path / "report.md").read_text()


def test_a_section_is_stopped_at_its_limit_and_says_so(tmp_path: Path) -> None:
    status, report = kit(tmp_path, "--minutes", "0.1", "--sections", "parity,sd15")
    assert status == 1
    states = [section["state"] for section in report["sections"]]
    assert states == ["stopped after 6 s", "not begun: no time was left"]


def test_unknown_sections_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--sections", "gpu"])
    said = capsys.readouterr().err
    assert "'gpu'" in said and SECTIONS[0].name in said
