"""``sdengine doctor``: what can run here, and what to do about the rest."""

import os
import platform
from importlib.util import find_spec
from typing import Annotated, Any

import typer
from rich.markup import escape

from ...engines.cuda.gpu import gpu_here
from ...engines.errors import EngineError
from ...engines.install_hint import install_hint
from ...engines.installed_packages import installed_packages
from ...engines.registry import ENGINES
from .console import out, print_json, table

__all__ = ["diagnosis", "doctor"]


def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show which engines can run here, and why the others cannot."""
    report = diagnosis()
    if json:
        print_json(report)
        return
    shown = table("Engines", "engine", "runs here", "version or reason")
    for name, state in report["engines"].items():
        detail = escape(state["version"] if state["available"] else state["reason"])  # "sdengine[cuda]" is no markup
        shown.add_row(name, "[green]yes[/green]" if state["available"] else "[red]no[/red]", detail)
    out.print(shown)
    machine = report["machine"]
    out.print(
        f"\n{machine['system']}, Python {machine['python']}, {machine['cores']} cores, "
        f"CPU features: {', '.join(machine['cpu_features']) or 'none of AVX-512 or AMX'}",
        highlight=False,
    )
    for problem in report["problems"]:
        out.print(f"problem: {problem}", style="yellow", markup=False, highlight=False)
    if not report["problems"]:
        out.print("no problems found", style="green")


def diagnosis() -> dict[str, Any]:
    """Return engines, installed packages, machine and problems."""
    engines = {}
    for name, kind in ENGINES.items():
        reason = kind.module.unavailable()
        engines[name] = {
            "available": reason is None,
            "version": None if reason else kind.module.version(),
            "reason": reason,
        }
    packages = installed_packages()
    problems = []
    if "onnxruntime" in packages and "onnxruntime-gpu" in packages:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install one of them again"
        )
    if not any(state["available"] for state in engines.values()):
        problems.append(f"no engine can run; {install_hint('cpu')}")
    gpu = _gpu()
    if gpu is not None and not any(
        engines[name]["available"] for name in ENGINES if ENGINES[name].devices == ("cuda",)
    ):
        problems.append(f"an {gpu} is here and no engine for it; {install_hint('tensorrt-rtx')}")
    if find_spec("sdengine.export") is None or find_spec("torch") is None:
        problems.append(f"`sdengine export` needs torch; {install_hint('export')}")
    return {"engines": engines, "packages": packages, "machine": _machine(), "problems": problems}


def _gpu() -> str | None:
    """Return the first NVIDIA GPU's name, or None where the driver finds none."""
    try:
        gpu = gpu_here()
    except EngineError:
        return None  # the engines' own reasons say what the driver answered
    return None if gpu is None else f"{gpu.model} ({gpu.generation})"


def _machine() -> dict[str, Any]:
    flags: set[str] = set()
    try:
        with open("/proc/cpuinfo") as file:
            flags = {flag for line in file if line.startswith("flags") for flag in line.split(":")[1].split()}
    except OSError:
        pass  # not Linux: nothing is claimed about the CPU
    relevant = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "cpu_features": [flag for flag in relevant if flag in flags],
    }
