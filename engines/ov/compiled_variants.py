"""A graph as OpenVINO compiles it: read, told its lengths, rewritten, taken in parts, compiled, kept for next time.

OpenVINO fuses more where it knows shapes, and writes its kernels as it compiles, not at the first run. So a small
network is compiled twice: once for the lengths that its bundle is tuned for (``opt`` of every axis), and, when others
are met, once with axes left open. A step of the demo takes 0.7 times as long at the lengths it is tuned for. A large
network that is called once a step gets both at once, with one set of packed weights, where its graph and weights are
bfloat16: see :mod:`.size_variants`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.compiled_cache import Kept
from ..bundle.manifest import Graph
from ..resident import release_freed, release_mapped
from ..spec import ComponentSpec, resolve_dim, split_dim
from ..weights import Overlay, changed_tensors
from .extra_outputs import mark_outputs
from .float32_sinusoids import split_sinusoids
from .openvino_library import core, library
from .pointwise_products import convolve_products
from .size_variants import tuned_or_open
from .split_geglu import halve_gated_projections
from .upsample_after import convolve_before_doubling

__all__ = ["DEVICE", "Form", "Forms", "compiled", "runs_in"]

DEVICE = "CPU"
_EVERY_STEP = ("denoiser", "controlnet")
"""Kinds of components that are called once a step: they soon win what compiling them for several lengths costs."""


class Form(NamedTuple):
    """Compiled models, to be run one after the other, and what their constants lie in."""

    models: list[Any]
    memory: Any


class Forms:
    """The compiled forms of one component.

    Not for several threads at once.

    Args:
        bundle: where the graph and its weights are.
        component: which one.
        graph: its graph.
        engine: name of the engine.
        settings: what forms depend on beside the graph: the library's version.
        options: given to OpenVINO's compiler.

    Attributes:
        notes: what the user should know about how forms were kept.
        small: whether the network is small: then there is a form for the tuned lengths, and what it leaves in memory
            does not matter.
        mapped: the file that the weights of a large network are mapped from.

    """

    def __init__(
        self,
        bundle: Bundle,
        component: str,
        graph: Graph,
        *,
        engine: str,
        settings: Mapping[str, str],
        options: Mapping[str, Any],
    ) -> None:
        self.notes: list[str] = []
        self._file = str(bundle.checked_graph(component, graph.file))
        self._spec = graph.spec
        self._options = options
        self._settings = {**settings, **{name: str(value) for name, value in options.items()}}
        self._bundle, self._component, self._graph, self._engine = bundle, component, graph, engine
        self._made: dict[bool, Form] = {}
        self.small = self._kept(tuned=True).wanted()
        record = bundle.component(component)
        self._changes = bundle.weights(record.network).changes
        self.mapped = None if self.small else bundle.file(bundle.manifest.networks[record.network].weights)
        self._both = not self.small and record.kind in _EVERY_STEP and graph == record.graphs.get("bf16")

    def first(self) -> Form:
        """Return the form to open ahead of use: for the tuned lengths, or of a large network the open one."""
        return self._get(tuned=self.small)

    def at(self, axes: Mapping[str, int]) -> Form:
        """Return the form for these lengths."""
        tuned = all(length == self._spec.axes[axis].opt for axis, length in axes.items())
        return self._get(tuned=tuned and self.small)

    def _get(self, *, tuned: bool) -> Form:
        if tuned not in self._made:
            kept = self._kept(tuned=tuned)
            self._made[tuned] = self._opened(kept, self._lengths(tuned=tuned))
            self.notes += kept.notes
            if self.mapped is not None:  # what was packed needs the file no longer
                release_freed()
                release_mapped(self.mapped)
        return self._made[tuned]

    def _lengths(self, *, tuned: bool) -> dict[str, int]:
        """Return the lengths that are known."""
        axes = self._spec.axes
        return {axis: allowed.opt for axis, allowed in axes.items() if tuned or allowed.min == allowed.max}

    def _kept(self, *, tuned: bool) -> Kept:
        lengths = str(sorted(self._lengths(tuned=tuned).items()))
        settings = {**self._settings, "lengths": lengths}
        return Kept(self._bundle, self._component, self._graph.file, engine=self._engine, settings=settings)

    def _opened(self, kept: Kept, lengths: Mapping[str, int]) -> Form:
        """Import what was compiled before, or compile."""
        body = kept.read()
        if body is not None:
            try:
                parts: list[memoryview] = msgspec.msgpack.decode(body, type=list[memoryview])
                if not parts:
                    raise ValueError("it holds no model")
                found = [
                    core().import_model(_tensor(part), DEVICE, dict(given))
                    for part, given in zip(parts, _options_of_parts(len(parts), self._options), strict=True)
                ]
                return Form(found, body)
            except Exception as error:  # damaged, or openvino raises bare RuntimeError and its subclasses
                kept.notes.append(f"what was cached was not used and is made again: {error}")
        form = self._compiled(lengths)
        if self.small and runs_in(form.models[-1]) == self._options["INFERENCE_PRECISION_HINT"]:
            kept.write(msgspec.msgpack.encode([model.export_model().getvalue() for model in form.models]))
        return form

    def _compiled(self, lengths: Mapping[str, int]) -> Form:
        if self._both:
            try:
                guided = self._lengths(tuned=True)
                unguided = {**guided, "R": guided["S"]}
                tuned = [guided] if unguided == guided else [guided, unguided]
                return compiled(self._file, self._spec, lengths, self._options, tuned, changes=self._changes)
            except Exception as error:  # openvino raises bare RuntimeError and its subclasses
                last = str(error).strip().splitlines()[-1]
                self.notes.append(f"{self._component} is not tuned for any lengths, as openvino cannot: {last}")
        return compiled(self._file, self._spec, lengths, self._options, changes=self._changes)


def _tensor(part: memoryview) -> Any:
    """Return a tensor over what was kept: the model's constants stay where they are in it."""
    return library().Tensor(np.frombuffer(part, np.uint8), shared_memory=True)


def runs_in(model: Any) -> str:
    """Return the type that a compiled model computes in, as OpenVINO calls it."""
    return str(model.get_property("INFERENCE_PRECISION_HINT").to_string())


def compiled(
    file: str,
    spec: ComponentSpec,
    lengths: Mapping[str, int],
    options: Mapping[str, Any],
    tuned: Sequence[Mapping[str, int]] = (),
    marked: Collection[str] = (),
    rewritten: bool = True,
    changes: Overlay | None = None,
) -> Form:
    """Compile a graph; in bfloat16 as two models where it has sinusoids, see :func:`split_sinusoids`.

    Args:
        file: an ONNX graph.
        spec: its inputs, outputs and axes.
        lengths: of the axes that are known; the others are left open.
        options: given to OpenVINO's compiler.
        tuned: lengths of all axes that it shall be faster at, the likeliest first: for bfloat16 graphs, see
            :func:`tuned_or_open`.
        marked: values of the graph to make outputs of, see :func:`mark_outputs`; not beside ``tuned``.
        rewritten: change what OpenVINO would not do well; else compile the graph as it is.
        changes: weights to use in place of those of the same name.

    """
    model = core().read_model(file)
    held: list[Any] = _with_changes(model, changes or {})
    _fix_shapes(model, spec, lengths)
    if rewritten:
        held += halve_gated_projections(model)
    if rewritten:
        convolve_before_doubling(model)
    if tuned:
        held += convolve_products(model)
    split = split_sinusoids(model) if options["INFERENCE_PRECISION_HINT"] == "bf16" else None
    *before, network = (model,) if split is None else split
    if tuned:
        network = tuned_or_open(network, [_shapes(spec, axes, before) for axes in tuned])
    parts = (*before, network)
    left = set(marked)
    for part in parts:
        left -= mark_outputs(part, left)
    given = _options_of_parts(len(parts), options)
    models = [core().compile_model(part, DEVICE, dict(o)) for part, o in zip(parts, given, strict=True)]
    return Form(models, held)


def _with_changes(model: Any, changes: Overlay) -> list[Any]:
    """Put other weights in the place of constants; return what they lie in, which the model does not hold."""
    if not changes:
        return []
    from openvino import opset13 as ops

    held = []
    constants = {op.get_friendly_name(): op for op in model.get_ordered_ops() if op.get_type_name() == "Constant"}
    for name, array in changed_tensors(changes, constants):
        constant = constants[name]
        port = constant.output(0)
        held.append(library().Tensor(array, port.get_shape(), port.get_element_type()))
        other = ops.constant(held[-1], shared_memory=True)
        for consumer in list(port.get_target_inputs()):
            consumer.replace_source_output(other.output(0))
    return held


def _shapes(spec: ComponentSpec, axes: Mapping[str, int], before: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all inputs, and of what the models before make of them."""
    shapes = {tensor.name: tensor.resolve(axes) for tensor in spec.inputs}
    for model in before:
        told = model.clone()
        told.reshape({port.get_any_name(): library().PartialShape(shapes[port.get_any_name()]) for port in told.inputs})
        shapes |= {port.get_any_name(): tuple(port.get_shape()) for port in told.outputs}
    return shapes


def _options_of_parts(count: int, options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The last part is the network; what is before it is small, and exact."""
    exact = {**options, "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return [exact] * (count - 1) + [options]


def _fix_shapes(model: Any, spec: ComponentSpec, lengths: Mapping[str, int]) -> None:
    """Tell the model the lengths of axes."""
    if not lengths:
        return

    def known(dim: int | str) -> int:
        axis = split_dim(dim)[1] if isinstance(dim, str) else None
        if axis is not None and axis not in lengths:
            return -1
        return resolve_dim(dim, lengths)

    names = {port.get_any_name() for port in model.inputs}
    shapes = {t.name: [known(dim) for dim in t.shape] for t in spec.inputs if t.name in names}
    model.reshape({name: library().PartialShape(shape) for name, shape in shapes.items()})
