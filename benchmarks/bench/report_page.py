"""``report.html``: the report as one page that needs nothing else, made to be looked at."""

import datetime
import itertools
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from .compare_reports import Change, Comparison
from .figure import Absent
from .figure_text import difference_text, number
from .plots import PREFIX, Plot, case_plots, cold_start_plot, memory_plot, throughput_plot
from .remarks import published_beside_ours, remarks_on
from .report import EngineReport, Picture, Report

__all__ = ["page_of"]

_COLD_PARTS = (
    ("process", "start the process"),
    ("imports", "import sdengine.runtime"),
    ("library", "import the engine's library"),
    ("open", "open the bundle"),
    ("compile", "compile or load the engines"),
    ("first_picture", "draw the first picture"),
    ("total", "all"),
)
_MEMORY_PARTS = (
    ("imported", "resident after the imports"),
    ("loaded", "resident with engines open"),
    ("peak", "peak resident"),
    ("device", "on the device"),
)


def page_of(report: Report, comparison: Comparison | None = None) -> str:
    """Write the page.

    Args:
        report: what was measured.
        comparison: with an older report, if there is one.

    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files(__package__)
    jinja = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.tests["absent"] = lambda value: isinstance(value, Absent)
    template = jinja.from_string((folder / "page.html.jinja").read_text())
    return template.render(
        **_words(report),
        **_plots(report),
        **_contents(report, comparison),
        css=Markup((folder / "page.css").read_text()),
    )


def _words(report: Report) -> dict[str, Any]:
    """Functions that the template calls."""
    return {"number": number, "difference_text": difference_text, "pixels": _pixels, "plural": _plural} | {
        "change_text": _change_text,
        "ran_in": _ran_in,
        "alt": lambda name, width, height, steps, seed: (
            f"Drawn by {name}: “{report.settings.prompt}”, {width}x{height}, {steps} steps, seed {seed}"
        ),
        "case_line": lambda case: ", ".join(
            f"{engine.engine} {number(engine.cases[case].stages.total.p50)} ms" for engine in report.engines
        ),
    }


def _plots(report: Report) -> dict[str, Any]:
    from markupsafe import Markup

    serial = itertools.count()
    several = len(report.settings.batches) > 1
    return {
        "svg": lambda plot: Markup(plot.svg.replace(PREFIX, f"plot-{next(serial)}-")),
        "case_plots": [(case.label, case_plots(report.engines, i)) for i, case in enumerate(report.engines[0].cases)],
        "cold_start": cold_start_plot(report),
        "throughput": _throughput_plots(report) if several else [],
        "memory": memory_plot(report),
    }


def _contents(report: Report, comparison: Comparison | None) -> dict[str, Any]:
    changes = () if comparison is None else comparison.changes
    return {
        "report": report,
        "comparison": comparison,
        "by_place": [(p, list(same)) for p, same in itertools.groupby(changes, lambda change: change.place)],
        "machine": ", ".join(gpu["name"] for gpu in report.environment.gpus) or report.environment.cpu.model,
        "created": _day(report.created),
        "compared_with": None if comparison is None else _day(comparison.created),
        "remarks": remarks_on(report),
        "cold_parts": _COLD_PARTS,
        "memory_parts": _MEMORY_PARTS,
        "pictures": list(_pictures(report)),
        "published": list(published_beside_ours(report)),
        "environment": list(_environment(report)),
    }


def _pictures(report: Report) -> Iterator[tuple[tuple[int, int, int], list[tuple[str, Picture, list[str]]]]]:
    """Give for each size and number of steps: what was drawn, by whom, how far off."""
    reference = () if isinstance(report.reference, Absent) else report.reference.pictures
    for height, width in report.settings.sizes:
        for steps in report.settings.steps:
            shown = [
                ("float32 torch", drawn.picture, ["the reference"])
                for drawn in reference
                if (drawn.height, drawn.width, drawn.steps) == (height, width, steps)
            ]
            for engine in report.engines:
                same = [c for c in engine.cases if (c.height, c.width, c.steps) == (height, width, steps)]
                lines = [
                    f"{difference_text(case.difference)}, batch {case.batch}"
                    for case in same
                    if not isinstance(case.difference, Absent)
                ]
                lines.append(f"{number(same[0].stages.total.p50)} ms")
                shown.append((engine.engine, same[0].picture, lines))
            yield (width, height, steps), shown


def _environment(report: Report) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    found, cpu = report.environment, report.environment.cpu
    yield (
        "Machine",
        [
            ("system", found.system),
            *((name.replace("_", " "), _fact(getattr(cpu, name))) for name in cpu.__struct_fields__),
        ],
    )
    for i, gpu in enumerate(found.gpus):
        yield f"GPU {i}", list(gpu.items())
    yield "Software", [("sdengine", report.sdengine), ("Python", found.python), *found.packages.items()]
    variables = list(found.variables.items()) or [("none set", "that change speed")]
    yield "Environment variables", variables
    bundle = report.bundle
    yield "Bundle", [(name.replace("_", " "), _fact(getattr(bundle, name))) for name in bundle.__struct_fields__]
    settings = report.settings
    sizes = ", ".join(_pixels(size) for size in settings.sizes)
    others = [name for name in settings.__struct_fields__ if name != "sizes"]
    yield "Settings", [("sizes", sizes), *((name.replace("_", " "), _fact(getattr(settings, name))) for name in others)]
    for engine in report.engines:
        ran = [(name, f"{ran.engine}, {ran.precision}, {ran.device}") for name, ran in engine.components.items()]
        clocks = [
            (f"{part} MHz, drawing", f"{min(told):.0f} to {max(told):.0f}")
            for part in ("cpu", "gpu")
            if (told := [mhz for clocks in engine.clocks for mhz in getattr(clocks, part)])
        ]
        yield engine.engine, [("version", engine.version), *ran, *clocks]


def _fact(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_fact, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _ran_in(engine: EngineReport) -> str:
    """Name the precisions that ran, with the engines where ``auto`` chose."""
    denoiser = engine.components["denoiser"]
    others = sorted({ran.precision for ran in engine.components.values()} - {denoiser.precision})
    more = f", {', '.join(others)} in parts" if others else ""
    name = "" if engine.engine.startswith(denoiser.engine) else f"{denoiser.engine}, "
    return f"{name}{denoiser.precision}{more}"


def _change_text(change: Change) -> str:
    if change.verdict == "missing":
        return f"missing: {change.reason}"
    if change.relative is None:
        return change.verdict
    noise = "noise not known" if change.noise is None else f"±{change.noise:.1%}"
    return f"{change.relative:+.1%}, {noise}, {change.verdict}"


def _pixels(size: tuple[int, int]) -> str:
    """Write height and width as people do: width first."""
    return f"{size[1]}x{size[0]}"


def _day(moment: str) -> str:
    return f"{datetime.datetime.fromisoformat(moment):%d %B %Y, %H:%M} UTC"


def _plural(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _throughput_plots(report: Report) -> list[Plot]:
    settings = report.settings
    return [throughput_plot(report, size, steps) for size in settings.sizes for steps in settings.steps]
