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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .cases import CASES, COMPILED
from .compiled import state_file
from .report import Outcome, write_report
from .sections import SECTIONS, Section
from .setting import PARENT, Setting, add_arguments, arguments_of, setting_from

_ROOT = Path(__file__).parents[3]
_PACKAGES = ("engines", "export", "runtime")
_CANNOT = 3
_GRACE = 5.0
"""Seconds that a section has to write what it measured when its time is up."""
_CONVOLUTIONS = "TORCHINDUCTOR_MAX_AUTOTUNE_CONV_BACKENDS"
"""What ``max-autotune`` tries for convolutions: cuDNN alone, unless the environment says otherwise. Timing Triton's
against it took 9 s for a shape, of which SDXL's networks have more than fifty."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the kit; exit status 0 if every section that can run here did, and all checks hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.kit", description="What this machine's GPU shows.")
    add_arguments(parser)
    parser.add_argument("--wheels", type=Path, help="folder of wheels to use where a package is not installed")
    parser.add_argument("--minutes", type=float, default=9.0, help="for everything [9]")
    parser.add_argument("--sections", help=f"some of {','.join(s.name for s in SECTIONS)} [all]")
    options = parser.parse_args(arguments)
    setting, end = setting_from(options), time.monotonic() + 60 * options.minutes
    sections = _chosen(parser, options.sections)
    if not options.minutes > 0:
        parser.error(f"--minutes {options.minutes:g}: it must be more than 0")
    if (setting.out / "report.json").exists():
        parser.error(
            f"--out {options.out}: it has a report already; name another folder, "
            f"and --work {setting.work} to go on with what was prepared and compiled there"
        )
    if options.wheels is not None and not list(options.wheels.glob("*.whl")):
        parser.error(f"--wheels {options.wheels}: there are no wheels")
    try:
        for folder in (setting.out, setting.work):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out, --work: {error}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing that was started is left running
    outcomes: list[Outcome] = []
    try:
        with _environment(options.wheels, setting) as environment, _beside(setting, sections, environment) as beside:
            for section in sections:
                seconds = end - time.monotonic()
                if section is not sections[-1]:
                    seconds = min(section.limit, seconds)
                beside.before(section)
                outcomes.append(_run(section, setting, environment, seconds))
                beside.after(section)
                write_report(setting, outcomes)
    except KeyboardInterrupt:
        state = "interrupted, or not begun"
        done = {outcome.section for outcome in outcomes}
        outcomes += [Outcome(section=s, state=state, good=False, seconds=0.0) for s in sections if s not in done]
        write_report(setting, outcomes)
    except subprocess.CalledProcessError as error:
        print(f"pip cannot install the wheels in {options.wheels}; see above ({error})", file=sys.stderr)
        return 2
    for outcome in outcomes:
        print(f"{outcome.section.name}: {outcome.state} ({outcome.seconds:.0f} s)")
    print(f"report: {setting.out / 'report.md'}")
    return 0 if all(outcome.good for outcome in outcomes) else 1


def _chosen(parser: argparse.ArgumentParser, names: str | None) -> list[Section]:
    wanted = None if names is None else names.split(",")
    unknown = set(wanted or ()) - {s.name for s in SECTIONS}
    if unknown:
        known = ", ".join(s.name for s in SECTIONS)
        parser.error(f"--sections {', '.join(map(repr, sorted(unknown)))}: there are {known}")
    return [s for s in SECTIONS if wanted is None or s.name in wanted]


@contextmanager
def _environment(wheels: Path | None, setting: Setting) -> Iterator[dict[str, str]]:
    """Let Python find this repository as ``sdengine``, and the wheels, without installing anything."""
    with tempfile.TemporaryDirectory(prefix="sdengine-kit-") as folder:
        package = Path(folder) / "sdengine"
        package.mkdir()
        for name in _PACKAGES:
            (package / name).symlink_to(_ROOT / name)
        paths = [folder]
        if wheels is not None:
            site = Path(folder) / "site"
            files = [str(file) for file in sorted(wheels.glob("*.whl")) if not _installed(file.name.partition("-")[0])]
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
            if files:
                subprocess.run([*pip, "--no-cache-dir", "--target", str(site), *files], check=True)
                paths.append(str(site))
        sys.path += paths  # versions are read off what is installed there
        before = os.environ.get("PYTHONPATH")
        compiled = {"TORCHINDUCTOR_CACHE_DIR": str(setting.work / "compiled"), _CONVOLUTIONS: "ATEN"}
        always = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        always[PARENT] = str(os.getpid())
        packages = {"PYTHONPATH": os.pathsep.join([*paths, *([before] if before else [])])}
        yield compiled | os.environ | always | packages


def _installed(name: str) -> bool:
    with suppress(PackageNotFoundError):
        return bool(version(name))
    return False


class _Beside:
    """What runs beside sections: it makes checkpoints and bundles, and compiles contenders."""

    def __init__(self, setting: Setting, sections: Sequence[Section], environment: dict[str, str]) -> None:
        self._setting, self._environment = setting, environment
        self._kinds = [section.name for section in sections if section.name in CASES]
        self._compiling: list[subprocess.Popen[bytes]] = []
        self._compiled = ""
        self._preparing = self._start("prepare", *self._kinds) if self._kinds else None

    def _start(self, module: str, *names: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", f"tests.gpu.kit.{module}", *names, *arguments_of(self._setting)]
        name = module if module == "prepare" else "-".join(names)
        with (self._setting.out / f"{name}.log").open("w") as log:
            return _popen(command, log, self._environment)

    def before(self, section: Section) -> None:
        """Begin to compile for the first section that will need it, unless this one must be alone."""
        if self._setting.compile and self._kinds and not section.alone and not self._compiled:
            self._compiled = self._kinds[0]
            for name in [name for names in COMPILED for name in names]:
                state_file(self._setting, self._compiled, name).unlink(missing_ok=True)
                self._compiling.append(self._start("compiled", self._compiled, name))

    def after(self, section: Section) -> None:
        """End what was compiled for a section; let the others go on, if it was killed while they were stopped."""
        if section.name == self._compiled:
            self._end_compiling()
            self._compiled = ""
        if section.name in self._kinds:
            self._kinds.remove(section.name)
        for process in self._compiling:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)

    def _end_compiling(self) -> None:
        while self._compiling:
            _stop(self._compiling.pop())

    def close(self) -> None:
        """End everything."""
        self._end_compiling()
        if self._preparing is not None:
            _stop(self._preparing)


@contextmanager
def _beside(setting: Setting, sections: Sequence[Section], environment: dict[str, str]) -> Iterator[_Beside]:
    beside = _Beside(setting, sections, environment)
    try:
        yield beside
    finally:
        beside.close()


def _popen(command: Sequence[str], log: Any, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=_ROOT, start_new_session=True)


def _run(section: Section, setting: Setting, environment: dict[str, str], seconds: float) -> Outcome:
    if seconds < 5:
        return Outcome(section=section, state="not begun: no time was left", good=False, seconds=0.0)
    until_end = seconds - min(_GRACE, seconds / 10)
    command = [sys.executable, "-m", "tests.gpu.kit.section", section.name, "--seconds", str(until_end)]
    started = time.monotonic()
    with (setting.out / f"{section.name}.log").open("w") as log:
        process = _popen([*command, *arguments_of(setting)], log, environment)
        try:
            status: int | None = process.wait(until_end)
        except subprocess.TimeoutExpired:
            status = None
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
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
