"""Printing: results to standard output, everything else to standard error."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["build_progress", "err", "fail", "out", "print_json", "step_progress", "table", "work_progress"]

_NO_WIDTH = not os.environ.get("COLUMNS", "1").strip("0")  # rich takes COLUMNS=0 at its word, and prints nothing
_width = shutil.get_terminal_size().columns if _NO_WIDTH else None
# without emoji: ":x:" in a prompt or a file name stays as it is
out = Console(width=_width, emoji=False)
err = Console(width=_width, stderr=True, emoji=False)


def fail(message: str) -> None:
    """Print an error."""
    err.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(title: str, *columns: str) -> Table:
    """Return an empty table in the style of all commands."""
    empty = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for column in columns:
        empty.add_column(column)
    return empty


@contextmanager
def step_progress(label: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar of the steps on a terminal; yield the callback that advances it."""
    if quiet or not err.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def build_progress() -> Iterator[Callable[[str, str, int, int], None]]:
    """Show a bar of the steps of a build on a terminal, elsewhere a line for each; yield the callback that advances it.

    The callback takes component, phase, steps done and steps of the phase. Phases are nested: the bar is of the first
    phase of each component, with the name of the current one.
    """
    outermost: dict[str, tuple[str, int]] = {}
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("building", total=None)

        def advance(component: str, phase: str, done: int, steps: int) -> None:
            outer, before = outermost.setdefault(component, (phase, 0))
            bar.update(task, description=f"{component}: {phase[:60]}")
            if phase != outer:
                return
            outermost[component] = (outer, done)
            bar.update(task, completed=done, total=steps)
            if not err.is_terminal and done > before:
                err.print(f"{component}: {phase}, step {done} of {steps}", markup=False, highlight=False)

        yield advance


@contextmanager
def work_progress(total: int, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show a bar of the calls on a terminal, elsewhere a line for each new part; yield the callback that advances it.

    The callback takes ``PART: DETAIL``.
    """
    if quiet:
        yield lambda label: None
        return
    if not err.is_terminal:
        parts: set[str] = set()

        def advance(label: str) -> None:
            part = label.rpartition(": ")[0]
            if part not in parts:
                parts.add(part)
                err.print(part, markup=False, highlight=False)

        yield advance
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=err, transient=True) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda label: bar.update(task, advance=1, description=label)
