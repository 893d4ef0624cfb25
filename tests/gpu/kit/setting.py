"""What a section is told about where it runs."""

import argparse
import ctypes
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["PARENT", "Setting", "add_arguments", "arguments_of", "end_with_parent", "setting_from"]

PARENT = "SDENGINE_KIT_PROCESS"
"""The variable that has the process number of the kit, for those that it starts."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how large.

    Attributes:
        out: folder of the report.
        work: folder for checkpoints and bundles, which may be large.
        device: ``cuda:0``, or ``cpu`` where only the kit itself is tried.
        scale: ``full``, published sizes; or ``tiny``, to try the kit.
        tiny: folder with the tiny bundles, from ``python -m tests.gpu.kit.tiny``; None exports them.
        compile: whether torch.compile is measured too.

    """

    out: Path
    work: Path
    device: str
    scale: str
    tiny: Path | None
    compile: bool

    @property
    def gpu(self) -> bool:
        """Whether it is about a GPU."""
        return self.device.startswith("cuda")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`setting_from` reads."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--work", type=Path, help="folder for checkpoints and bundles [OUT/work]")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu to try the kit itself")
    parser.add_argument("--scale", default="full", choices=["full", "tiny"], help="tiny: to try the kit itself")
    parser.add_argument("--tiny", type=Path, help="folder with the tiny bundles [they are exported]")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")


def setting_from(options: argparse.Namespace) -> Setting:
    """Read the command line."""
    out = options.out.absolute()
    return Setting(
        out=out,
        work=(options.work or out / "work").absolute(),
        device=options.device,
        scale=options.scale,
        tiny=None if options.tiny is None else options.tiny.absolute(),
        compile=options.compile,
    )


def arguments_of(setting: Setting) -> list[str]:
    """Return the command line that gives a setting."""
    found = []
    for name, value in asdict(setting).items():
        if name == "compile":
            found += [] if value else ["--no-compile"]
        elif value is not None:
            found += [f"--{name}", str(value)]
    return found


def end_with_parent() -> None:
    """Let the kernel end this process when the kit ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ.get(PARENT, os.getppid())):  # it has ended already
        sys.exit("the kit has ended")
