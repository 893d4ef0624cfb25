"""The acceptance kit runs where there is no GPU, with tiny sizes: sections, limits and report."""

import json
import signal
import subprocess
import sys
import time
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .kit.__main__ import main
from .kit.compiled import Compiling, state_file
from .kit.contenders import Contender, Drawn
from .kit.race import Race
from .kit.record import Record
from .kit.sections import SECTIONS
from .kit.setting import Setting
from .kit.wheels import PACKAGES, PRESENT

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_kit_that_is_interrupted_leaves_a_report_and_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.gpu.kit", "--out", str(tmp_path), "--device", "cpu", "--scale", "tiny"]
    kit = subprocess.Popen([*command, "--sections", "sdxl,sd15"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while len(_processes(tmp_path)) < 6:  # the kit, what prepares, three that compile, and a section
        assert kit.poll() is None
        time.sleep(0.1)
    kit.send_signal(number)
    said, _ = kit.communicate()
    assert kit.returncode == 1 and "interrupted" in said
    deadline = time.monotonic() + 120
    while _processes(tmp_path) and time.monotonic() < deadline:  # one that was just being started ends by itself
        time.sleep(0.1)
    assert _processes(tmp_path) == []
    states = [section["state"] for section in json.loads((tmp_path / "report.json").read_text())["sections"]]
    assert states == ["interrupted, or not begun"] * 2


def _processes(folder: Path) -> list[str]:
    """Return the command lines of the processes that are about a report."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if str(folder) in line:
            lines.append(line)
    return lines


def _record(folder: Path) -> tuple[Record, Any]:
    record = Record(folder, "race", 3600)
    return record, lambda: [json.loads(line) for line in (folder / "race.jsonl").read_text().splitlines()]


def _contender(name: str, *, fails_at: int | None = None, error: type[BaseException] = RuntimeError) -> Contender:
    calls = []

    def draw(_prompt: str, _seed: int, batch: int) -> Drawn:
        calls.append(name)
        if len(calls) == fails_at:
            raise error
        return Drawn(images=np.zeros((batch, 8, 8, 3), np.uint8), seconds=1.0, stages={"denoise": 0.5})

    return Contender(name=name, draw=draw, latents=lambda *_: np.zeros(1, np.float32), close=lambda: None, opened=0.0)


def test_one_that_fails_leaves_the_race_to_the_others(tmp_path: Path) -> None:
    record, lines = _record(tmp_path)
    race = Race(record, "a race", "cpu")
    race.enter("steady", lambda: _contender("steady"))
    race.enter("weak", lambda: _contender("weak", fails_at=4))
    race.run(["steady", "weak"], rounds=3)
    runs = {line["contender"]: line["runs"] for line in lines() if "runs" in line}
    assert runs == {"steady": 3, "weak": 1} and list(race.open) == ["steady"]
    [failure] = [line for line in lines() if not line.get("holds", True)]
    assert failure["contender"] == "weak"


def test_what_a_race_has_measured_is_written_when_time_is_up(tmp_path: Path) -> None:
    record, lines = _record(tmp_path)
    race = Race(record, "a race", "cpu")
    race.enter("steady", lambda: _contender("steady"))
    race.enter("cut", lambda: _contender("cut", fails_at=5, error=SystemExit))
    with pytest.raises(SystemExit):
        race.run(["steady", "cut"], rounds=9)
    assert {line["contender"]: line["runs"] for line in lines() if "runs" in line} == {"steady": 3, "cut": 2}


def test_those_that_compile_are_stopped_while_others_are_measured(tmp_path: Path) -> None:
    setting = Setting(out=tmp_path, work=tmp_path, device="cpu", scale="tiny", tiny=None, compile=True)
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)

    def state() -> str:
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    try:
        compiling = Compiling(setting, "sdxl")
        name, failed, *_ = compiling.names
        state_file(setting, "sdxl", name).write_text(json.dumps({"state": "compiling", "pid": process.pid}))
        state_file(setting, "sdxl", failed).write_text(json.dumps({"state": "failed", "error": "no compiler"}))
        with compiling.stopped():
            while state() != "T":
                time.sleep(0.01)
        while state() == "T":
            time.sleep(0.01)
        assert compiling.done() == [failed]
        with pytest.raises(RuntimeError, match="no compiler"):
            compiling.contender(failed)
    finally:
        process.kill()
        process.wait()


def test_the_wheels_are_all_that_may_be_missing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [
        Requirement(line).name for line in (*project["dependencies"], *project["optional-dependencies"]["export"])
    ]
    present, collected = _closure(PRESENT), {canonicalize_name(name) for name in PACKAGES}
    assert _closure([*needed, *PACKAGES]) - present - collected == set()


def _closure(names: Any) -> set[str]:
    """Return the packages, and what they need on Linux."""
    closure: set[str] = set()
    left = [canonicalize_name(name) for name in names]
    while left:
        name = left.pop()
        if name in closure:
            continue
        closure.add(name)
        try:
            lines = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:  # one that only a GPU's build of torch needs
            continue
        left += [canonicalize_name(r.name) for r in lines if r.marker is None or r.marker.evaluate({"extra": ""})]
    return closure


def test_a_report_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--device", "cpu", "--scale", "tiny"])
    assert "has a report already" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text() == "{}"


def test_wheels_that_cannot_be_installed_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    arguments = ["--out", str(tmp_path / "out"), "--device", "cpu", "--sections", "engines", "--wheels", str(wheels)]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "there are no wheels" in capsys.readouterr().err
    (wheels / "unheard_of-1.0-cp27-cp27m-win32.whl").write_bytes(b"")
    assert main(arguments) == 2
    assert str(wheels) in capsys.readouterr().err


def test_unknown_sections_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--sections", "gpu"])
    said = capsys.readouterr().err
    assert "'gpu'" in said and SECTIONS[0].name in said
