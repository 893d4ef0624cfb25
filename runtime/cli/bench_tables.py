"""The tables that ``sdengine bench`` prints: the report, and a comparison."""

import itertools
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from ...benchmarks.bench.compare_reports import Comparison, FigureChange
from ...benchmarks.bench.figure import QUANTILES, Absent
from ...benchmarks.bench.figure_text import difference_text, figure_text, number
from ...benchmarks.bench.remarks import published_beside_ours, remarks_on
from ...benchmarks.bench.report import Case, EngineReport, LoadFigures, Report, Stages
from .console import err, out, table

__all__ = ["print_comparison", "print_report"]

_CASE = ("engine", "size", "steps", "batch")
_MARKS = {"worse": "red", "missing": "red", "better": "green", "same": "dim", "added": "dim"}


def print_report(report: Report) -> None:
    """Print what was measured, and what was not and why."""
    for tabled in (_latency, _load, _steps, _stages, _cold_starts, _memory, _size_changes):
        shown = tabled(report)
        if shown.row_count:
            out.print(shown)
            out.print()
    _print_published(report)
    for line in remarks_on(report):
        err.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


def print_comparison(comparison: Comparison) -> None:
    """Print the change of every figure, then what else has changed, then the count."""
    for place, changes in itertools.groupby(comparison.changes, lambda change: change.place):
        out.print(_changes(place, changes))
        out.print()
    for line in comparison.circumstances:
        err.print(f"changed: {line}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    counted = {verdict: sum(change.verdict == verdict for change in comparison.changes) for verdict in _MARKS}
    counts = ", ".join(f"{count} {verdict}" for verdict, count in counted.items() if count)
    out.print(
        f"{counts}; what is within its noise or {comparison.tolerance:.1%} is the same", highlight=False, soft_wrap=True
    )


def _changes(place: str, changes: Iterable[FigureChange]) -> Table:
    shown = table(place, "figure", "", "then", "now", "", "change", "noise", "")
    _right(shown, 2, 3, 5, 6)
    for column, width in zip(shown.columns, (26, 3, 7, 7, 8, 7, 7, 7), strict=True):
        column.min_width = width
    for change in changes:
        noise = "unknown" if change.noise is None and change.relative is not None else ""
        shown.add_row(
            change.name,
            change.quantile,
            *("–" if value is None else number(value) for value in (change.old, change.new)),
            change.unit,
            "" if change.relative is None else f"{change.relative:+.1%}",
            f"±{change.noise:.1%}" if change.noise else noise,
            f"[{_MARKS[change.verdict]}]{change.verdict}[/]",
        )
    return shown


def _latency(report: Report) -> Table:
    shown = table("Milliseconds of a call", *_CASE, "p50", "p90", "p99", "images/s", "from float32 torch")
    _right(shown, *range(2, 8))
    for engine in report.engines:
        for case in engine.cases:
            shown.add_row(
                *_setting(engine, case),
                *(figure_text(case.stages.total, quantile) for quantile in QUANTILES),
                figure_text(case.throughput),
                difference_text(case.difference),
            )
    return shown


def _load(report: Report) -> Table:
    columns = ("engine", "workers", "clients", "threads", "images/s", "ms, p50", "cores", "MB")
    shown = table("Under load, requests of one image; cores and MB of all workers", *columns)
    _right(shown, *range(1, len(columns)))
    for engine in report.engines:
        for case in engine.load:
            if isinstance(figures := case.measured, LoadFigures):
                values = (figures.images_per_s, figures.p50_ms, figures.cores, figures.memory_mb)
                counts = (str(case.workers), str(case.clients), "auto" if case.threads is None else str(case.threads))
                shown.add_row(engine.engine, *counts, *("–" if v is None else number(v) for v in values))
    return shown


def _steps(report: Report) -> Table:
    shown = table("Milliseconds of a step", *_CASE, *QUANTILES)
    _right(shown, *range(2, 7))
    for engine in report.engines:
        for case in engine.cases:
            shown.add_row(*_setting(engine, case), *(figure_text(case.step, quantile) for quantile in QUANTILES))
    return shown


def _stages(report: Report) -> Table:
    stages = Stages.__struct_fields__[:-1]
    shown = table("Milliseconds of each stage, p50", *_CASE, *stages)
    _right(shown, *range(2, 4 + len(stages)))
    for engine in report.engines:
        for case in engine.cases:
            shown.add_row(*_setting(engine, case), *(figure_text(getattr(case.stages, stage)) for stage in stages))
    return shown


def _setting(engine: EngineReport, case: Case) -> tuple[str, ...]:
    return engine.engine, f"{case.width}x{case.height}", str(case.steps), str(case.batch)


def _cold_starts(report: Report) -> Table:
    return _by_engine(report, "Cold start, milliseconds, p50", "cold_start")


def _memory(report: Report) -> Table:
    return _by_engine(report, "Memory, MB, p50", "memory")


def _by_engine(report: Report, title: str, attribute: str) -> Table:
    names = getattr(report.engines[0], attribute).__struct_fields__
    shown = table(title, "engine", *(name.replace("_", " ") for name in names))
    _right(shown, *range(1, len(names) + 1))
    for engine in report.engines:
        record: Any = getattr(engine, attribute)
        shown.add_row(engine.engine, *(figure_text(getattr(record, name)) for name in names))
    return shown


def _size_changes(report: Report) -> Table:
    shown = table("Changes of size, milliseconds, p50", "engine", "from", "to", "size is", "first call", "second call")
    _right(shown, 4, 5)
    for engine in report.engines:
        for change in () if isinstance(engine.size_changes, Absent) else engine.size_changes:
            sizes = (f"{w}x{h}" for h, w in (change.before, change.after))
            seen = "known" if change.seen else "new"
            shown.add_row(engine.engine, *sizes, seen, figure_text(change.first), figure_text(change.second))
    return shown


def _print_published(report: Report) -> None:
    if isinstance(report.published, Absent):
        out.print(f"Published figures to compare with: {report.published.reason}", highlight=False, soft_wrap=True)
        return
    shown = table("Published figures for the same model, size and steps", "on", "size", "steps", "figure", "source")
    for figure, here in published_beside_ours(report):
        setting = (f"{figure.width}x{figure.height}", str(figure.steps))
        shown.add_row(figure.gpu, *setting, f"{number(figure.value)} {figure.unit}", f"{figure.source}, {figure.url}")
        for name, batch, own in here:
            shown.add_row(f"here: {name}", *setting, f"{number(own.p50)} {own.unit}", f"p50, batch {batch}")
    out.print(shown)


def _right(shown: Table, *columns: int) -> None:
    for column in columns:
        shown.columns[column].justify = "right"
