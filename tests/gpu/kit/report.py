"""``report.json`` and ``report.md`` out of the sections' lines."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .sections import Section
from .setting import Setting

__all__ = ["Outcome", "write_report"]

_PACKAGES = ("torch", "triton", "diffusers", "transformers", "onnxruntime", "tensorrt", "cuda-bindings", "numpy")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a section ended."""

    section: Section
    state: str
    good: bool
    seconds: float


def write_report(setting: Setting, outcomes: Sequence[Outcome]) -> None:
    """Write both files from what is there so far."""
    sections = [
        {
            "name": outcome.section.name,
            "title": outcome.section.title,
            "state": outcome.state,
            "seconds": round(outcome.seconds, 1),
            "lines": _lines(setting, outcome.section.name),
        }
        for outcome in outcomes
    ]
    report = {"machine": _machine(), "scale": setting.scale, "device": setting.device, "sections": sections}
    (setting.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (setting.out / "report.md").write_text("\n".join(_markdown(report)) + "\n")


def _lines(setting: Setting, name: str) -> list[dict[str, Any]]:
    file = setting.out / f"{name}.jsonl"
    found = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:  # the section was stopped while it wrote
            break
    return found


def _machine() -> dict[str, Any]:
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    return {
        "gpu": _nvidia_smi(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": packages,
        "date": time.strftime("%Y-%m-%d"),
    }


def _nvidia_smi() -> str:
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"none ({error})"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _markdown(report: dict[str, Any]) -> list[str]:
    machine = report["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    lines = [
        "# Acceptance kit",
        "",
        f"{machine['gpu']}; {machine['cores']} cores of {machine['processor']}; "
        f"Python {machine['python']}; {packages}; {machine['date']}. "
        f"Device {report['device']}, {report['scale']} sizes.",
    ]
    for section in report["sections"]:
        lines += ["", f"## {section['title']}", "", f"{section['state']}, {section['seconds']} s", ""]
        rows = section["lines"]
        checks = [row for row in rows if "check" in row]
        if checks:
            lines.append(f"{sum(row['holds'] for row in checks)} of {len(checks)} checks hold.")
        lines += [f"- skipped: {row['skipped']}: {row['reason']}" for row in rows if "skipped" in row]
        lines += [
            f"- DOES NOT HOLD: {row['check']}: {row['error']} {_rest(row, 'check', 'holds', 'error')}"
            for row in checks
            if not row["holds"]
        ]
        tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for row in rows:
            name = row.get("figure") or (row.get("check") if row.get("holds") else None)
            if name is not None:
                values = {key: value for key, value in row.items() if key not in ("figure", "check", "holds")}
                tables.setdefault((name, *values), []).append(values)
        for (name, *columns), values in tables.items():
            lines += ["", f"**{name}**", "", _row(columns), _row(["---"] * len(columns))]
            lines += [_row([_text(value[column]) for column in columns]) for value in values]
    return lines


def _rest(row: dict[str, Any], *without: str) -> str:
    return ", ".join(f"{key} {_text(value)}" for key, value in row.items() if key not in without)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items())
    return ("yes" if value else "no") if isinstance(value, bool) else str(value).replace("|", "/")
