"""Remarks on a report: what is missing and why, and what others have measured."""

from collections.abc import Iterator

from .figure import Absent, Figure
from .published import PublishedFigure
from .report import Report

__all__ = ["published_beside_ours", "remarks_on"]


def remarks_on(report: Report) -> list[str]:
    """Say what was not measured, what fell back, and what the engines warned of."""
    remarks = [f"{skipped.engine} was not measured: {skipped.reason}" for skipped in report.skipped]
    if isinstance(report.reference, Absent):
        remarks.append(f"no difference from float32 torch: {report.reference.reason}")
    for engine in report.engines:
        remarks += [f"{engine.engine} skipped {skipped.engine}: {skipped.reason}" for skipped in engine.skipped]
        remarks += [f"{engine.engine}: {warning}" for warning in engine.warnings]
        if isinstance(engine.size_changes, Absent):
            remarks.append(f"{engine.engine}: no change of size: {engine.size_changes.reason}")
        for loaded in engine.load:
            if isinstance(loaded.measured, Absent):
                remarks.append(f"{engine.engine}: {loaded.workers} workers were not measured: {loaded.measured.reason}")
    absent: dict[str, set[str]] = {}
    for engine in report.engines:
        for name in engine.memory.__struct_fields__:
            figure = getattr(engine.memory, name)
            if isinstance(figure, Absent):
                absent.setdefault(figure.reason, set()).add(f"{name} memory")
        for case in engine.cases:
            if isinstance(case.step, Absent):
                absent.setdefault(case.step.reason, set()).add("time of a step")
    return remarks + [f"{' and '.join(sorted(names))} is not known: {reason}" for reason, names in absent.items()]


def published_beside_ours(report: Report) -> Iterator[tuple[PublishedFigure, list[tuple[str, int, Figure]]]]:
    """Yield each published figure, and our own for the same work: engine, batch, figure."""
    for figure in () if isinstance(report.published, Absent) else report.published:
        yield (
            figure,
            [
                (engine.engine, case.batch, case.stages.total if figure.unit == "ms" else case.throughput)
                for engine in report.engines
                for case in engine.cases
                if figure.compares_with(((case.height, case.width), case.steps, case.batch))
            ],
        )
