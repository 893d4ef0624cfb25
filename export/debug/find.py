"""Finds the first layers of a component that depart from the reference."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ...engines.bundle.bundle import Bundle
from ...engines.engine import Engine
from ...engines.errors import UsageError, nearest
from ...engines.opening_options import OpeningOptions
from ...engines.parity import TOLERANCES, sample
from ...engines.registry import ENGINES, open_engine
from ...engines.spec import AxisRange, ComponentSpec
from ...engines.trt.profiles import vae_factor
from .as_traced import differences_from_trace
from .compare import LayerComparison, compare
from .departure import Departure, LayerDifference
from .graph_layers import GraphLayer, chunks, layers_of
from .runners import AGAINST, engine_runner, marked_runner, ran_by, reference_runner
from .save import Saved
from .subject import Subject

__all__ = ["AGAINST", "REASONS", "DebugSettings", "find_departure"]

REASONS = {
    "fp32": "in float32 only the order of sums differs",
    "fp16": "float16 carries 11 bits, through some hundred layers",
    "bf16": "bfloat16 carries 8 bits, through some hundred layers",
}
"""For :data:`~sdengine.engines.parity.TOLERANCES`, which exports are verified with."""


@dataclass(frozen=True, kw_only=True)
class DebugSettings:
    """Settings of a comparison.

    Attributes:
        against: one of :data:`~.runners.AGAINST`.
        precision: what the engine computes in; None is its choice.
        device: where it runs; None is its choice.
        size: height and width in pixels; None is what the bundle is optimised for.
        seed: of the inputs, which are random, of the magnitudes that a request has.
        tolerance: largest difference of a layer over its largest value; None is that of the precision.
        show: most layers to report.
        memory: most bytes of layers' outputs to hold of each side at once.
        plain: run the plain graph, without what sdengine rewrites for an engine.

    """

    against: str = "torch"
    precision: str | None = None
    device: str | None = None
    size: tuple[int, int] | None = None
    seed: int = 0
    tolerance: float | None = None
    show: int = 5
    memory: int = 1 << 30
    plain: bool = False


def find_departure(
    bundle: Bundle,
    component: str,
    engine: str,
    settings: DebugSettings,
    *,
    report: Callable[[str], None] | None = None,
    save: Path | None = None,
) -> Departure:
    """Run a component on an engine and on the reference, and compare them layer by layer.

    Layers are compared in chunks, in order, up to the end of the chunk in which the first departs: later
    differences follow from it.

    Args:
        bundle: the bundle.
        component: which component.
        engine: a name of :data:`~sdengine.engines.registry.ENGINES`.
        settings: see :class:`DebugSettings`.
        report: called with each thing that is done.
        save: a folder to write inputs and outputs to; it is made.

    Raises:
        UsageError: a setting cannot be met.
        BundleError: the component is not there, or a file was changed.
        EngineError: engine or reference cannot run.

    """
    say = report or (lambda _: None)
    _check(engine, settings)
    say(f"{component}: {engine} as it runs for images")
    options = OpeningOptions(device=settings.device)
    with closing(
        open_engine(bundle, component, engine=engine, precision=settings.precision, options=options).engine
    ) as e:
        subject = _subject(bundle, component, e, settings)
        tolerance = TOLERANCES[e.precision] if settings.tolerance is None else settings.tolerance
        say(f"{component}: {settings.against} in float32")
        outputs = _compared_outputs(subject, e, settings.against, tolerance)
        device, notes = e.device, list(e.notes)
        if settings.size is not None and not {"h", "w"} & subject.axes.keys():
            notes.append(f"{component} has no height and width, so that --size has no effect on it")
    del e
    layers = layers_of(subject.model, subject.spec, subject.axes)
    altered = differences_from_trace(subject) if settings.against == "torch" else {}
    rounded = {name for layer in layers if layer.operator == "Round" for name in layer.outputs}
    described_layers: dict[str, LayerDifference] = {}
    compared, unseen, saved = 0, 0, Saved()
    parts = list(chunks(layers, settings.memory))
    for number, part in enumerate(parts, 1):
        names = [name for layer in part for name in layer.outputs]
        last = compared + len(part)
        say(f"{component}: layers {compared + 1} to {last} of {len(layers)}, part {number} of {len(parts)}")
        reference = reference_runner(subject, settings.against, names)
        differences = compare(
            reference, marked_runner(subject, names), subject.inputs, tolerance, rounded=rounded, confirm=settings.show
        )
        described = _described(part, differences, described_layers, tolerance, altered)
        compared += len(part)
        unseen += sum(not any(name in differences for name in layer.outputs) for layer in part)
        saved.add(described, differences, settings.show)
        described_layers |= {d.value: d for d in described}
        if any(d.departs for d in described):
            break
    over = [d for d in described_layers.values() if d.departs]
    notes += _altered_within_tolerance(altered, over, settings.show)
    departure = Departure(
        component=component,
        engine=engine,
        device=device,
        precision=subject.precision,
        against=settings.against,
        graph=subject.graph.file,
        ran=ran_by(subject),
        axes=dict(subject.axes),
        tolerance=tolerance,
        reason=REASONS[subject.precision] if settings.tolerance is None else "as asked for",
        outputs={name: difference.error for name, difference in outputs.items()},
        layers=len(layers),
        compared=compared - unseen,
        unseen=unseen,
        first=tuple(over[: settings.show]),
        over=len(over),
        worst=max(described_layers.values(), key=lambda d: d.error or 0.0, default=None) if not over else None,
        notes=tuple(notes),
    )
    if save is not None:
        saved.write(save, subject, departure, outputs)
    return departure


def _check(engine: str, settings: DebugSettings) -> None:
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}; there are {', '.join(ENGINES)}{nearest(engine, ENGINES)}")
    if settings.against not in AGAINST:
        known = ", ".join(AGAINST)
        raise UsageError(f"--against {settings.against!r}: there are {known}{nearest(settings.against, AGAINST)}")
    if settings.tolerance is not None and not (math.isfinite(settings.tolerance) and settings.tolerance > 0):
        raise UsageError(f"--tolerance {settings.tolerance} is no positive number")


def _subject(bundle: Bundle, component: str, engine: Engine, settings: DebugSettings) -> Subject:
    graphs = bundle.component(component).graphs
    precision = engine.precision if engine.precision in graphs else "fp32"
    if precision not in graphs or (engine.name == "torch" and precision != engine.precision):
        raise UsageError(
            f"{component}: the bundle holds graphs in {', '.join(graphs)}, so that layers of {engine.precision} have "
            f"no names; try --precision {next(iter(graphs))}"
        )
    if (engine.name, engine.precision, settings.against) == ("torch", "fp32", "torch"):
        raise UsageError("torch in float32 is the reference itself; try --against onnxruntime or another --precision")
    spec = _at(bundle, graphs[precision].spec, settings.size)
    axes, inputs = sample(spec, settings.seed)
    return Subject(
        bundle=bundle,
        component=component,
        engine=engine.name,
        device=settings.device,
        precision=engine.precision,
        graph_precision=precision,
        plain=settings.plain,
        axes=axes,
        inputs=inputs,
    )


def _at(bundle: Bundle, spec: ComponentSpec, size: tuple[int, int] | None) -> ComponentSpec:
    """Narrow the axes to the sizes that the bundle is optimised for, or to a size in pixels."""
    axes = {axis: AxisRange(allowed.opt, allowed.opt, allowed.opt) for axis, allowed in spec.axes.items()}
    factor = vae_factor(bundle)
    for axis, pixels in zip("hw", size or (), strict=False):
        if axis not in spec.axes:
            continue
        allowed, length = spec.axes[axis], pixels // factor
        if pixels % factor or not allowed.min <= length <= allowed.max:
            raise UsageError(
                f"--size: {pixels} is no multiple of {factor} from {allowed.min * factor} to {allowed.max * factor}"
            )
        axes[axis] = AxisRange(length, length, length)
    return msgspec.structs.replace(spec, axes=axes)


def _compared_outputs(subject: Subject, engine: Engine, against: str, tolerance: float) -> dict[str, LayerComparison]:
    names = [tensor.name for tensor in subject.spec.outputs]
    return compare(reference_runner(subject, against, names), engine_runner(subject, engine), subject.inputs, tolerance)


def _altered_within_tolerance(altered: Mapping[str, str], over: Collection[LayerDifference], most: int) -> list[str]:
    """Return remarks about nodes that are not as traced, though their values are within tolerance or unseen."""
    departed = {d.value for d in over}
    names = [name for name in altered if name not in departed]
    remarks = [f"{name} is not over tolerance, but {altered[name]}" for name in names[:most]]
    return remarks + ([f"so are {len(names) - most} other nodes"] if len(names) > most else [])


def _described(
    layers: Sequence[GraphLayer],
    differences: Mapping[str, LayerComparison],
    before: Mapping[str, LayerDifference],
    tolerance: float,
    altered: Mapping[str, str],
) -> list[LayerDifference]:
    """Describe the values that were compared, in the order in which they are computed."""
    described: dict[str, LayerDifference] = {}
    for layer in layers:
        inputs = [d for name in layer.inputs if (d := described.get(name) or before.get(name)) is not None]
        for name in layer.outputs:
            if name in differences:
                described[name] = _layer_difference(layer, name, differences[name], inputs, tolerance, altered)
    return list(described.values())


def _layer_difference(
    layer: GraphLayer,
    name: str,
    difference: LayerComparison,
    inputs: Collection[LayerDifference],
    tolerance: float,
    altered: Mapping[str, str],
) -> LayerDifference:
    notes = [altered[name]] if name in altered else []
    if difference.expected.shape != difference.actual.shape:
        notes.append(f"its shape should be {list(difference.expected.shape)}")
    errors = [math.inf if d.error is None else d.error for d in inputs]
    worst = max(errors, default=None)
    return LayerDifference(
        value=name,
        node=layer.node,
        operator=layer.operator,
        shape=tuple(difference.actual.shape),
        dtype=str(difference.actual.dtype),
        inputs=layer.inputs,
        error=difference.error,
        inputs_error=worst if worst is None or math.isfinite(worst) else None,
        tolerance=tolerance,
        note="; ".join(notes),
    )
