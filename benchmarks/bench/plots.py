"""The page's plots: drawn by matplotlib as SVG, coloured by the page's style sheet.

Lines and areas are drawn in stand-in colours, which become CSS variables, so that one plot serves the light and the
dark scheme; text stays text, in the page's font.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .figure import Figure
from .report import Case, EngineReport, Report

__all__ = ["PREFIX", "Plot", "case_plots", "cold_start_plot", "memory_plot", "throughput_plot"]

PREFIX = "this-plot-"
"""Begins every name inside a plot; the page replaces it by another for each plot."""

_INK, _FAINT, _LINE = "#010101", "#020202", "#030303"
_ENGINES = [f"#0101{i:02x}" for i in range(16, 22)]
_PARTS = [f"#0202{i:02x}" for i in range(16, 23)]
_VARIABLES = {
    _INK: "--ink",
    _FAINT: "--faint",
    _LINE: "--line",
    **{colour: f"--engine-{i}" for i, colour in enumerate(_ENGINES)},
    **{colour: f"--part-{i}" for i, colour in enumerate(_PARTS)},
}
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.grid.axis": "x",
    "axes.axisbelow": True,
    "axes.labelcolor": _FAINT,
    "axes.labelsize": 11,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "sdengine",
    "text.color": _INK,
    "xtick.color": _LINE,
    "xtick.labelcolor": _FAINT,
    "ytick.color": _LINE,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
}
_WIDTH = 4.9  # inches of 72 units: about as wide as a phone, so that nothing is shrunk much


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot.

    Attributes:
        title: what it shows.
        alt: the same as text, with its figures.
        svg: to include in the page.

    """

    title: str
    alt: str
    svg: str


@dataclass(frozen=True, kw_only=True)
class _Row:
    """An engine's figure; ``place`` is the engine's among all, which decides its colour."""

    place: int
    name: str
    figure: Figure


def case_plots(engines: Sequence[EngineReport], case: int) -> list[Plot]:
    """Plot one case of all engines: stages, calls, steps."""
    cases = [engine.cases[case] for engine in engines]
    names = [engine.engine for engine in engines]
    calls = [
        _Row(place=i, name=name, figure=measured.stages.total)
        for i, (name, measured) in enumerate(zip(names, cases, strict=True))
    ]
    steps = [
        _Row(place=i, name=name, figure=measured.step)
        for i, (name, measured) in enumerate(zip(names, cases, strict=True))
        if isinstance(measured.step, Figure)
    ]
    plots = [_stages(names, cases), _strips("Every call", "milliseconds", calls)]
    return plots + ([_violins("Every step", steps), _step_by_step(steps)] if steps else [])


def cold_start_plot(report: Report) -> Plot:
    """Plot the parts of a cold start."""
    parts = ("process", "imports", "library", "open", "compile", "first_image")
    values = [[getattr(engine.cold_start, part).p50 for part in parts] for engine in report.engines]
    names = [engine.engine for engine in report.engines]
    return _bars("From nothing to the first image", names, [part.replace("_", " ") for part in parts], values)


def throughput_plot(report: Report, size: tuple[int, int], steps: int) -> Plot:
    """Plot images per second against batch, with the middle four fifths of the calls."""
    description = []
    with _axes(2.6, xlabel="images per call", ylabel="images per second") as (ax, done):
        batches = report.settings.batches
        for i, engine in enumerate(report.engines):
            same = [c for c in engine.cases if ((c.height, c.width), c.steps) == (size, steps)]
            middle = [case.throughput.p50 for case in same]
            low, high = np.transpose([np.percentile(case.throughput.samples, [10, 90]) for case in same])
            at = range(len(batches))
            ax.fill_between(at, low, high, color=_engine(i), alpha=0.18, linewidth=0)
            ax.plot(at, middle, color=_engine(i), marker="o", markersize=4.5, label=engine.engine)
            points = ", ".join(f"{value:.3g} at {batch}" for value, batch in zip(middle, batches, strict=True))
            description.append(f"{engine.engine}: {points}")
        ax.set_xticks(range(len(batches)), [str(batch) for batch in batches])
        ax.set_ylim(bottom=0)
        ax.grid(visible=True, axis="y")
        ax.grid(visible=False, axis="x")
        _legend(ax)
    title = f"{size[1]}x{size[0]}, {steps} steps"
    return Plot(title=title, alt=f"Images per second by batch. {'; '.join(description)}", svg=done())


def memory_plot(report: Report) -> Plot | None:
    """Plot resident memory; None where it is not known."""
    parts = ("imported", "loaded", "peak")
    rows = [[getattr(engine.memory, part) for part in parts] for engine in report.engines]
    known = [[figure.p50 for figure in row if isinstance(figure, Figure)] for row in rows]
    if any(len(row) < len(parts) for row in known):
        return None
    grown = [[row[0], row[1] - row[0], max(row[2] - row[1], 0.0)] for row in known]
    names = [engine.engine for engine in report.engines]
    labels = ("after the imports", "added by opening", "added by generating")
    return _bars("Resident memory", names, labels, grown, unit="MB")


def _stages(names: Sequence[str], cases: Sequence[Case]) -> Plot:
    stages = [stage for stage, _ in cases[0].stages.items()[:-1]]
    values = [[figure.p50 for _, figure in case.stages.items()[:-1]] for case in cases]
    return _bars("Where a call spends its time", names, stages, values)


def _bars(
    title: str, names: Sequence[str], parts: Sequence[str], values: Sequence[Sequence[float]], *, unit: str = "ms"
) -> Plot:
    """Draw one stacked bar for each engine."""
    units = {"ms": "milliseconds, p50", "MB": "MB, p50"}
    with _axes(1.1 + 0.42 * len(names), xlabel=units[unit]) as (ax, done):
        left = np.zeros(len(names))
        for i, part in enumerate(parts):
            widths = np.array([row[i] for row in values])
            ax.barh(names, widths, left=left, height=0.6, color=_PARTS[i], label=part, linewidth=0)
            left += widths
        ax.invert_yaxis()
        _legend(ax)
    description = "; ".join(
        f"{name}: " + ", ".join(f"{part} {value:.3g} {unit}" for part, value in zip(parts, row, strict=True))
        for name, row in zip(names, values, strict=True)
    )
    return Plot(title=title, alt=f"{title}. {description}", svg=done())


def _strips(title: str, xlabel: str, rows: Sequence[_Row]) -> Plot:
    """Draw every sample as a dot, each round on a line of its own, and the median as a bar."""
    with _axes(0.75 + 0.55 * len(rows), xlabel=xlabel) as (ax, done):
        for i, row in enumerate(rows):
            rounds = len(row.figure.rounds)
            for j, samples in enumerate(row.figure.rounds):
                at = i + (0.0 if rounds == 1 else (j / (rounds - 1) - 0.5) * 0.44)
                ax.plot(samples, [at] * len(samples), "o", color=_engine(row.place), alpha=0.65, markersize=4.2, mew=0)
            ax.vlines(row.figure.p50, i - 0.36, i + 0.36, color=_INK, linewidth=1.4)
        _engine_rows(ax, rows)
    return Plot(title=title, alt=f"{title}, one dot each. {_percentiles(rows)}", svg=done())


def _violins(title: str, rows: Sequence[_Row]) -> Plot:
    """Draw the density of the samples with marks at p50, p90 and p99."""
    with _axes(0.75 + 0.55 * len(rows), xlabel="milliseconds; marks at p50, p90 and p99") as (ax, done):
        for i, row in enumerate(rows):
            samples = row.figure.samples
            # The slowest hundredth has only a mark; plotted to scale it would leave no room for the rest.
            shown = samples[samples <= row.figure.p99]
            if np.ptp(shown) > 0:
                body = ax.violinplot([shown], [i], orientation="horizontal", widths=0.8, showextrema=False)["bodies"][0]
                body.set(facecolor=_engine(row.place), edgecolor="none", alpha=0.45)
            for quantile, reach in (("p50", 0.36), ("p90", 0.24), ("p99", 0.14)):
                ax.vlines(getattr(row.figure, quantile), i - reach, i + reach, color=_INK, linewidth=1.4)
        _engine_rows(ax, rows)
    return Plot(title=title, alt=f"{title}: how often each duration came. {_percentiles(rows)}", svg=done())


def _step_by_step(rows: Sequence[_Row]) -> Plot:
    with _axes(2.1, xlabel="step", ylabel="milliseconds") as (ax, done):
        description = []
        for row in rows:
            by_step = row.figure.samples.reshape(-1, row.figure.per_run)
            low, middle, high = np.percentile(by_step, [10, 50, 90], axis=0)
            at, colour = np.arange(1, len(middle) + 1), _engine(row.place)
            ax.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
            ax.plot(at, middle, color=colour, linewidth=1.6, label=row.name, marker="o" if len(at) == 1 else None)
            description.append(f"{row.name}: median {middle.min():.3g} to {middle.max():.3g} ms")
        ax.set_ylim(bottom=0)
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(visible=True, axis="y")
        ax.grid(visible=False, axis="x")
        _legend(ax)
    title = "Step by step"
    alt = f"Median of each step, and the middle four fifths of the calls. {'; '.join(description)}"
    return Plot(title=title, alt=alt, svg=done())


def _percentiles(rows: Sequence[_Row]) -> str:
    return "; ".join(
        f"{row.name}: p50 {row.figure.p50:.3g}, p90 {row.figure.p90:.3g}, p99 {row.figure.p99:.3g} {row.figure.unit}"
        for row in rows
    )


def _engine_rows(ax: Any, rows: Sequence[_Row]) -> None:
    ax.set_yticks(range(len(rows)), [row.name for row in rows])
    ax.set_ylim(len(rows) - 0.45, -0.55)
    ax.set_xlim(left=0)


def _legend(ax: Any) -> None:
    labels = ax.get_legend_handles_labels()[1]
    columns = next((n for n in range(min(len(labels), 3), 1, -1) if _legend_width(labels, n) <= 44), 1)
    ax.figure.legend(loc="outside upper left", ncols=columns, handlelength=0.9, handleheight=0.9, columnspacing=1.2)


def _legend_width(labels: Sequence[str], columns: int) -> int:
    """Estimate the width in letters; columns are filled one after another."""
    rows = -(-len(labels) // columns)
    return sum(4 + max(map(len, labels[i : i + rows])) for i in range(0, len(labels), rows))


def _engine(i: int) -> str:
    return _ENGINES[i % len(_ENGINES)]


@contextmanager
def _axes(height: float, *, xlabel: str, ylabel: str = "") -> Iterator[tuple[Any, Callable[[], str]]]:
    """Yield axes in the page's style, and a function that returns the finished SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=(_WIDTH, height), layout="constrained")
        ax = canvas.add_subplot()
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        finished: list[str] = []
        yield ax, lambda: finished[0]
        stream = io.StringIO()
        canvas.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        finished.append(_for_page(stream.getvalue()))


def _for_page(svg: str) -> str:
    """Make an SVG file a part of the page: no prologue, no fixed size, its own names, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = svg.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{PREFIX}', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{PREFIX}", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("'DejaVu Sans'", "var(--sans)")
