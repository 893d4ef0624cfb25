"""The table that a build ends with."""

from collections.abc import Iterable

from .build import BuiltPlan

__all__ = ["COLUMNS", "rows_of"]

COLUMNS = ("component", "precision", "seconds", "plan MB", "weights MB", "scratch MB", "profiles", "kept")


def rows_of(plans: Iterable[BuiltPlan]) -> list[tuple[str, ...]]:
    """Return a row of text for each plan; see :data:`COLUMNS`. What the library did not tell is ``?``."""
    return [
        (
            plan.record.wanted.component,
            plan.record.wanted.precision,
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
