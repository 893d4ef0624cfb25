"""Reports on disk: the published schema, reading with validation, writing whole or not at all."""

import contextlib
import inspect
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ...engines.bundle.whole_file import write_whole
from ...engines.errors import SdengineError, UsageError
from ...engines.files.json_data import json_data
from .figure import Absent, Figure, figure_of
from .report import SCHEMA, Report

__all__ = ["SCHEMA_FILE", "make_schema", "read_report", "report_json", "report_schema", "write_all"]

SCHEMA_FILE = "report.schema.json"
_LIMIT = 256 * 2**20


def make_schema() -> dict[str, Any]:
    """Generate the JSON schema (draft 2020-12) of a report from its structs and their docstrings."""
    schema = msgspec.json.schema(Report)
    for definition in schema["$defs"].values():
        _describe(definition)
    schema["$defs"]["Report"]["properties"]["schema"]["const"] = SCHEMA
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sdengine bench report",
        **schema,
    }


def _describe(definition: dict[str, Any]) -> None:
    """Describe each property with its attribute's line of the docstring."""
    plain = re.sub(r":\w+:`~?([^`]*)`", lambda role: role[1].rpartition(".")[2], definition.get("description", ""))
    summary, _, attributes = inspect.cleandoc(plain).partition("Attributes:")
    definition["description"] = summary.strip().replace("``", "")
    for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", attributes, flags=re.MULTILINE):
        definition["properties"][name]["description"] = " ".join(text.split()).replace("``", "")


def report_schema() -> str:
    """Return the published schema, as JSON."""
    return (files(__package__) / SCHEMA_FILE).read_text()


def report_json(report: Report) -> bytes:
    """Return a report as JSON, after reading it back: an invalid report is never written."""
    data = msgspec.json.encode(report)
    _decoded(data, "the report")
    return msgspec.json.format(data, indent=1) + b"\n"


def read_report(path: Path) -> Report:
    """Read a report.

    Raises:
        UsageError: there is none, or it is no valid report; says where it is wrong.

    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the report.json in it")
    try:
        if path.stat().st_size > _LIMIT:
            raise UsageError(f"{path} is larger than {_LIMIT >> 20} MiB; it is no report")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return _decoded(data, str(path))


def _decoded(data: bytes, name: str) -> Report:
    try:
        content = json_data(data)
    except ValueError as error:
        raise UsageError(f"{name} is no report of `sdengine bench`: {error}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema is None:
        raise UsageError(f"{name} is no report of `sdengine bench`: it names no schema")
    if schema != SCHEMA:
        raise UsageError(f"{name} has schema {json.dumps(schema)}, this version reads {SCHEMA}; measure again")
    try:
        report = msgspec.json.decode(data, type=Report)
    except msgspec.DecodeError as error:
        raise UsageError(f"{name} is no valid report: {error}") from error
    for place, figure in report.figures():
        _check(figure, f"{name}: {', '.join(place)}")
    return report


def _check(figure: Figure | Absent, name: str) -> None:
    """Refuse percentiles that are not those of the samples."""
    if isinstance(figure, Absent):
        return
    again = figure_of(figure.unit, figure.rounds, better=figure.better, per_run=figure.per_run)
    for quantile in ("p50", "p90", "p99"):
        stated, computed = getattr(figure, quantile), getattr(again, quantile)
        if not np.isclose(stated, computed, rtol=1e-4, atol=1e-3):
            raise UsageError(f"{name} is no valid report: {quantile} is {stated}, its samples give {computed}")
    if len({len(samples) for samples in figure.rounds}) > 1 or len(figure.rounds[0]) % figure.per_run:
        raise UsageError(f"{name} is no valid report: its rounds have no equal, whole numbers of runs")


def write_all(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, which is made: all are written aside before any gets its name.

    Raises:
        SdengineError: they could not be written; none has its name then.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as all_of_them:
            for name, data in contents.items():
                all_of_them.enter_context(write_whole(folder / name)).write_bytes(data)
    except OSError as error:
        raise SdengineError(f"the report could not be written into {folder}: {error.strerror or error}") from error
