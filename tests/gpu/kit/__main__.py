"""Runs the sections one after another and writes the report after each."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .report import Outcome, write_report
from .sections import SECTIONS, Section
from .setting import Setting, add_arguments, arguments_of, setting_from

_ROOT = Path(__file__).parents[3]
_PACKAGES = ("engines", "export", "runtime")
_CANNOT = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kit; exit status 0 if every section that can run here did, and all checks hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.kit", description="What this machine's GPU shows.")
    add_arguments(parser)
    parser.add_argument("--wheels", type=Path, help="folder of wheels to use beside what is installed")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything [9]")
    parser.add_argument("--sections", help=f"some of {','.join(s.name for s in SECTIONS)} [all]")
    options = parser.parse_args(arguments)
    setting, end = setting_from(options), time.monotonic() + 60 * options.minutes
    wanted = None if options.sections is None else options.sections.split(",")
    unknown = set(wanted or ()) - {s.name for s in SECTIONS}
    if unknown:
        known = ", ".join(s.name for s in SECTIONS)
        parser.error(f"--sections {', '.join(map(repr, sorted(unknown)))}: there are {known}")
    sections = [s for s in SECTIONS if wanted is None or s.name in wanted]
    for folder in (setting.out, setting.work):
        folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    with _environment(options.wheels) as environment, _prepared(setting, sections, environment):
        for section in sections:
            seconds = min(section.limit, end - time.monotonic())
            outcomes.append(_run(section, setting, environment, seconds))
            write_report(setting, outcomes)
    for outcome in outcomes:
        print(f"{outcome.section.name}: {outcome.state} ({outcome.seconds:.0f} s)")
    print(f"report: {setting.out / 'report.md'}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


@contextmanager
def _environment(wheels: Path | None) -> Iterator[dict[str, str]]:
    """Let Python find this repository as ``sdengine``, and the wheels, without installing anything."""
    with tempfile.TemporaryDirectory(prefix="sdengine-kit-") as folder:
        package = Path(folder) / "sdengine"
        package.mkdir()
        for name in _PACKAGES:
            (package / name).symlink_to(_ROOT / name)
        paths = [folder]
        if wheels is not None:
            site = Path(folder) / "site"
            files = [str(file) for file in sorted(wheels.glob("*.whl"))]
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
            subprocess.run([*pip, "--no-cache-dir", "--target", str(site), *files], check=True)
            paths.append(str(site))
        sys.path += paths  # versions are read off what is installed there
        before = os.environ.get("PYTHONPATH")
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        yield os.environ | offline | {"PYTHONPATH": os.pathsep.join([*paths, *([before] if before else [])])}


@contextmanager
def _prepared(setting: Setting, sections: Sequence[Section], environment: dict[str, str]) -> Iterator[None]:
    """Make checkpoints and bundles of published sizes in a process beside the first sections."""
    kinds = [section.name for section in sections if section.name in ("sdxl", "sd15")]
    if not kinds:
        yield
        return
    command = [sys.executable, "-m", "tests.gpu.kit.prepare", *kinds, *arguments_of(setting)]
    with (setting.out / "prepare.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=_ROOT, start_new_session=True)
        try:
            yield
        finally:
            _stop(process)


def _run(section: Section, setting: Setting, environment: dict[str, str], seconds: float) -> Outcome:
    if seconds < 5:
        return Outcome(section=section, state="not begun: no time was left", good=False, seconds=0.0)
    command = [sys.executable, "-m", "tests.gpu.kit.section", section.name, "--seconds", str(seconds)]
    started = time.monotonic()
    with (setting.out / f"{section.name}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *arguments_of(setting)],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=_ROOT,
            start_new_session=True,
        )
        try:
            status: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _stop(process)
    took = time.monotonic() - started
    if status is None:
        return Outcome(section=section, state=f"stopped after {seconds:.0f} s", good=False, seconds=took)
    states = {0: "done", 1: "done, with checks that do not hold", _CANNOT: "not possible here"}
    state = states.get(status, f"ended with status {status}; see {section.name}.log")
    return Outcome(section=section, state=state, good=status in (0, _CANNOT), seconds=took)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
