"""Two reports: whether they can be compared, and what has changed from the old one to the new one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from ...engines.errors import UsageError
from .chance import change_and_noise
from .environment import Environment
from .figure import Absent, Figure
from .report import BundleRecord, Report
from .settings import Settings

__all__ = ["Comparison", "FigureChange", "Verdict", "check_comparable", "compare_reports"]

Verdict = Literal["worse", "better", "same", "missing", "added"]

_MUST_AGREE = (
    "sizes",
    "steps",
    "batches",
    "prompt",
    "seed",
    "guidance_scale",
    "scheduler",
    "threads",
    "device",
    "cuda_graph",
    "compile",
)
_LEAST = {"ms": 0.1, "MB": 1.0, "images/s": 0.0}
"""Smallest changes that count: neither the clock nor an allocator's pages are finer."""
_SAMPLES = {"p50": 1, "p90": 10, "p99": 100}
"""Fewest samples for a percentile: with fewer it is little more than their largest."""
_LEAST_DIFFERENCE = {"largest": 1.0, "rms": 0.02}
"""Levels of 8-bit RGB: one rounding."""


@dataclass(frozen=True, kw_only=True)
class FigureChange:
    """One figure in two reports.

    Attributes:
        place: of what.
        name: which figure.
        quantile: ``p50``, ``p90`` or ``p99``; empty where there is no distribution.
        unit: of the values.
        old: None where the old report has no such figure.
        new: None where the new report has none.
        relative: new / old - 1.
        noise: how much of that could be chance; None where that is not known.
        verdict: the judgement.
        reason: why a figure is missing.

    """

    place: str
    name: str
    quantile: str
    unit: str
    old: float | None
    new: float | None
    relative: float | None
    noise: float | None
    verdict: Verdict
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two reports, compared.

    Attributes:
        created: when the old report was made.
        changes: of every figure.
        circumstances: what else has changed; each may be the reason for a change.
        tolerance: relative change that is accepted whatever the noise.

    """

    created: str
    changes: tuple[FigureChange, ...]
    circumstances: tuple[str, ...]
    tolerance: float

    @property
    def failed(self) -> tuple[FigureChange, ...]:
        """The figures that are worse or missing."""
        return tuple(change for change in self.changes if change.verdict in ("worse", "missing"))


def compare_reports(old: Report, new: Report, tolerance: float) -> Comparison:
    """Compare every figure of two reports.

    Args:
        old: the report to compare the new one with.
        new: the other.
        tolerance: relative change that is accepted whatever the noise.

    Raises:
        UsageError: they are not of the same checkpoint and settings.

    """
    check_comparable(old, new.bundle, new.settings)
    return Comparison(
        created=old.created,
        changes=tuple(_changes(old, new, tolerance)),
        circumstances=tuple(_other_circumstances(old, new)),
        tolerance=tolerance,
    )


def check_comparable(old: Report, bundle: BundleRecord, settings: Settings) -> None:
    """Make sure that a report has the same checkpoint and settings.

    Raises:
        UsageError: it has not; names all that differs.

    """
    problems = [
        f"{name} was {_shown(getattr(old.settings, name))} and is {_shown(getattr(settings, name))}"
        for name in _MUST_AGREE
        if getattr(old.settings, name) != getattr(settings, name)
    ]
    if old.bundle.weights_sha256 != bundle.weights_sha256:
        problems.insert(0, f"the weights differ ({old.bundle.source} then, {bundle.source} now)")
    if problems:
        raise UsageError(f"the reports cannot be compared: {'; '.join(problems)}")


def _other_circumstances(old: Report, new: Report) -> list[str]:
    circumstances = []
    if old.bundle.sha256 != new.bundle.sha256:
        circumstances.append("the bundle was exported again: same weights, other graphs or plans")
    for name in ("rounds", "runs", "warmup"):
        before, after = getattr(old.settings, name), getattr(new.settings, name)
        if before != after:
            circumstances.append(f"{name}: {before} then, {after} now")
    if old.sdengine != new.sdengine:
        circumstances.append(f"sdengine: {old.sdengine} then, {new.sdengine} now")
    before, after = _facts(old.environment), _facts(new.environment)
    circumstances += [
        f"{name}: {before.get(name, 'none')} then, {after.get(name, 'none')} now"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    for report, when in ((old, "then"), (new, "now")):
        load = report.environment.cpu.load
        if load is not None and load > 0.5 * report.environment.cpu.usable:
            circumstances.append(f"the machine was busy before measuring {when}: load {load:.1f}")
    return circumstances


def _changes(old: Report, new: Report, tolerance: float) -> Iterator[FigureChange]:
    before, after = dict(old.figures()), dict(new.figures())
    for (place, name), figure in before.items():
        other = after.get((place, name), Absent(reason="the new report has no such figure"))
        if isinstance(figure, Figure) and isinstance(other, Figure):
            yield from _compared(place, name, figure, other, tolerance)
        elif isinstance(figure, Figure):
            yield _missing(place, name, figure.unit, figure.p50, other)
        elif isinstance(other, Figure):
            yield _added(place, name, other.unit, other.p50)
    for (place, name), other in after.items():
        if (place, name) not in before and isinstance(other, Figure):
            yield _added(place, name, other.unit, other.p50)
    yield from _image_changes(old, new, tolerance)


def _compared(place: str, name: str, old: Figure, new: Figure, tolerance: float) -> Iterator[FigureChange]:
    if (old.unit, old.better) != (new.unit, new.better):
        raise UsageError(f"{place}, {name}: {old.unit} cannot be compared with {new.unit}")
    worse = 1 if old.better == "lower" else -1
    for quantile, (relative, noise) in change_and_noise(old, new).items():
        if min(old.samples.size, new.samples.size) < _SAMPLES[quantile]:
            continue
        before, after = getattr(old, quantile), getattr(new, quantile)
        small = abs(relative) <= max(tolerance, noise or 0.0) or abs(after - before) < _LEAST[old.unit]
        verdict: Verdict = "same" if small else "worse" if relative * worse > 0 else "better"
        yield FigureChange(
            place=place,
            name=name,
            quantile=quantile,
            unit=old.unit,
            old=before,
            new=after,
            relative=relative,
            noise=noise,
            verdict=verdict,
        )


def _image_changes(old: Report, new: Report, tolerance: float) -> Iterator[FigureChange]:
    """Compare how far images are from the reference; an engine's images are always the same, so there is no noise."""
    before, after = _differences(old), _differences(new)
    for (place, name), value in before.items():
        other = after.get((place, name), Absent(reason="the new report has no such figure"))
        if isinstance(value, Absent):
            if isinstance(other, float):
                yield _added(place, name, "levels", other)
            continue
        if isinstance(other, Absent):
            yield _missing(place, name, "levels", value, other)
            continue
        change = other - value
        small = abs(change) < max(_LEAST_DIFFERENCE[name.split()[0]], tolerance * value)
        yield FigureChange(
            place=place,
            name=name,
            quantile="",
            unit="levels",
            old=value,
            new=other,
            relative=other / value - 1 if value else None,
            noise=0.0,
            verdict="same" if small else "worse" if change > 0 else "better",
        )


def _differences(report: Report) -> dict[tuple[str, str], float | Absent]:
    return {
        (f"{engine.engine}: {case.label}", f"{name} difference from torch"): case.difference
        if isinstance(case.difference, Absent)
        else float(getattr(case.difference, name))
        for engine in report.engines
        for case in engine.cases
        for name in _LEAST_DIFFERENCE
    }


def _missing(place: str, name: str, unit: str, old: float, now: Figure | Absent | float) -> FigureChange:
    reason = now.reason if isinstance(now, Absent) else ""
    return FigureChange(
        place=place,
        name=name,
        quantile="",
        unit=unit,
        old=old,
        new=None,
        relative=None,
        noise=None,
        verdict="missing",
        reason=reason,
    )


def _added(place: str, name: str, unit: str, new: float) -> FigureChange:
    return FigureChange(
        place=place,
        name=name,
        quantile="",
        unit=unit,
        old=None,
        new=new,
        relative=None,
        noise=None,
        verdict="added",
    )


def _facts(environment: Environment) -> dict[str, str]:
    """What should agree: not clocks, temperatures and load, which never do."""
    cpu = environment.cpu
    steady = ("model", "cores", "usable", "quota", "features", "max_mhz", "governor", "memory_mb")
    hardware = {f"CPU {name}": _shown(getattr(cpu, name)) for name in steady}
    for i, gpu in enumerate(environment.gpus):
        moving = ("clocks.sm", "clocks.mem", "pstate", "temperature.gpu")
        hardware |= {f"GPU {i} {name}": value for name, value in gpu.items() if name not in moving}
    return {
        "system": environment.system,
        "Python": environment.python,
        **hardware,
        **environment.packages,
        **environment.variables,
    }


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode()
