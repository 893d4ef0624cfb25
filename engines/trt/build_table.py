"""The table that a build ends with."""

from collections.abc import Iterable

from .build_plans import BuiltPlan

__all__ = ["COLUMNS", "rows_of"]

COLUMNS = ("component", "precision", "seconds", "plan MB", "weights MB", "scratch MB", "profiles", "reused")


def rows_of(plans: Iterable[BuiltPlan]) -> list[tuple[str, ...]]:
    """Return a row of text for each plan; see :data:`COLUMNS`. What the library did not report is ``?``."""
    return [
        (
            plan.record.source.component,
            plan.record.source.precision,
            f"{plan.record.seconds:.1f}",
            _megabytes(plan.record.plan_bytes),
            _megabytes(plan.record.weight_bytes),
            _megabytes(plan.record.activation_bytes),
            str(len(plan.record.profiles)),
            "yes" if plan.reused else "",
        )
        for plan in plans
    ]


def _megabytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 1e6:.1f}"
