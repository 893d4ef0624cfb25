"""Compiles a graph with OpenVINO: reads it, sets shapes, rewrites it, splits it, compiles it, caches the result.

OpenVINO fuses more where shapes are static, and generates its kernels while it compiles, not at the first run. So a
small network is compiled twice: once for the sizes that its bundle is optimised for (``opt`` of every axis), and, when
other sizes are used, once with dynamic axes. A step of the demo takes 0.7 times as long at the sizes it is optimised
for. A large network that is called once a step gets both in one model, with one set of packed weights, where its graph
and weights are bfloat16: see :mod:`.size_variants`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.compiled_cache import CompiledCache
from ..bundle.manifest import Graph
from ..resident import release_freed, release_mapped
from ..spec import ComponentSpec, resolve_dim, split_dim
from ..weights import Overlay, changed_tensors
from .extra_outputs import mark_outputs
from .float32_sinusoids import split_sinusoids
from .openvino_library import core, library
from .pointwise_products import convolve_products
from .size_variants import with_static_branches
from .split_geglu import halve_gated_projections
from .upsample_after import convolve_before_doubling

__all__ = ["DEVICE", "CompiledVariant", "CompiledVariants", "compiled", "runs_in"]

DEVICE = "CPU"
_EVERY_STEP = ("denoiser", "controlnet")
"""Kinds of components that are called once a step: compiling them for several sizes soon pays."""


class CompiledVariant(NamedTuple):
    """Compiled models, to be run one after the other, and the memory that their constants are in."""

    models: list[Any]
    memory: Any


class CompiledVariants:
    """The compiled variants of one component.

    Not for several threads at once.

    Args:
        bundle: where the graph and its weights are.
        component: which one.
        graph: its graph.
        engine: name of the engine.
        settings: what variants depend on beside the graph: the library's version.
        options: given to OpenVINO's compiler.

    Attributes:
        notes: what the user should know about how variants were cached.
        small: whether the network is small: then there is a variant for the optimised sizes, and what it leaves in
            memory does not matter.
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
        self._variants: dict[bool, CompiledVariant] = {}
        self.small = self._cache(static=True).fits_limit()
        record = bundle.component(component)
        self._changes = bundle.weights(record.network).changes
        self.mapped = None if self.small else bundle.file(bundle.manifest.networks[record.network].weights)
        self._branches = not self.small and record.kind in _EVERY_STEP and graph == record.graphs.get("bf16")

    def first(self) -> CompiledVariant:
        """Return the variant to open first: of a small network that for the optimised sizes, else the dynamic one."""
        return self._get(static=self.small)

    def at(self, axes: Mapping[str, int]) -> CompiledVariant:
        """Return the variant for these sizes."""
        static = all(size == self._spec.axes[axis].opt for axis, size in axes.items())
        return self._get(static=static and self.small)

    def _get(self, *, static: bool) -> CompiledVariant:
        if static not in self._variants:
            cache = self._cache(static=static)
            self._variants[static] = self._import_or_compile(cache, self._static_sizes(static=static))
            self.notes += cache.notes
            if self.mapped is not None:  # the packed weights are copies of what is in the file
                release_freed()
                release_mapped(self.mapped)
        return self._variants[static]

    def _static_sizes(self, *, static: bool) -> dict[str, int]:
        """Return the sizes of the axes that are static: all of them, or those that can have only one."""
        axes = self._spec.axes
        return {axis: allowed.opt for axis, allowed in axes.items() if static or allowed.min == allowed.max}

    def _cache(self, *, static: bool) -> CompiledCache:
        sizes = str(sorted(self._static_sizes(static=static).items()))
        settings = {**self._settings, "sizes": sizes}
        return CompiledCache(self._bundle, self._component, self._graph.file, engine=self._engine, settings=settings)

    def _import_or_compile(self, cache: CompiledCache, sizes: Mapping[str, int]) -> CompiledVariant:
        """Import a model that was compiled before, or compile it."""
        body = cache.read()
        if body is not None:
            try:
                parts: list[memoryview] = msgspec.msgpack.decode(body, type=list[memoryview])
                if not parts:
                    raise ValueError("it holds no model")
                models = [
                    core().import_model(_tensor(part), DEVICE, dict(part_options))
                    for part, part_options in zip(parts, _options_of_parts(len(parts), self._options), strict=True)
                ]
                return CompiledVariant(models, body)
            except Exception as error:  # it is damaged; openvino raises bare RuntimeError and its subclasses
                cache.notes.append(f"what was cached was not used and is made again: {error}")
        variant = self._compile(sizes)
        if self.small and runs_in(variant.models[-1]) == self._options["INFERENCE_PRECISION_HINT"]:
            cache.write(msgspec.msgpack.encode([model.export_model().getvalue() for model in variant.models]))
        return variant

    def _compile(self, sizes: Mapping[str, int]) -> CompiledVariant:
        if self._branches:
            try:
                guided = self._static_sizes(static=True)
                unguided = {**guided, "R": guided["S"]}
                branches = [guided] if unguided == guided else [guided, unguided]
                return compiled(self._file, self._spec, sizes, self._options, branches, changes=self._changes)
            except Exception as error:  # openvino raises bare RuntimeError and its subclasses
                last = str(error).strip().splitlines()[-1]
                self.notes.append(f"{self._component} is not optimised for any sizes, as openvino cannot: {last}")
        return compiled(self._file, self._spec, sizes, self._options, changes=self._changes)


def _tensor(part: memoryview) -> Any:
    """Return a tensor over cached bytes: the model's constants stay where they are in them."""
    return library().Tensor(np.frombuffer(part, np.uint8), shared_memory=True)


def runs_in(model: Any) -> str:
    """Return the type that a compiled model computes in, as OpenVINO calls it."""
    return str(model.get_property("INFERENCE_PRECISION_HINT").to_string())


def compiled(
    file: str,
    spec: ComponentSpec,
    sizes: Mapping[str, int],
    options: Mapping[str, Any],
    branches: Sequence[Mapping[str, int]] = (),
    extra_outputs: Collection[str] = (),
    rewritten: bool = True,
    changes: Overlay | None = None,
) -> CompiledVariant:
    """Compile a graph; in bfloat16 as two models where it has sinusoids, see :func:`split_sinusoids`.

    Args:
        file: an ONNX graph.
        spec: its inputs, outputs and axes.
        sizes: of the axes that are static; the others are dynamic.
        options: given to OpenVINO's compiler.
        branches: sizes of all axes that it shall be faster at, the likeliest first: for bfloat16 graphs, see
            :func:`with_static_branches`.
        extra_outputs: values of the graph to make outputs of, see :func:`mark_outputs`; not beside ``branches``.
        rewritten: whether to rewrite what OpenVINO runs slowly; else the graph is compiled as it is.
        changes: weights to use in place of those of the same name.

    """
    model = core().read_model(file)
    owners: list[Any] = _with_changes(model, changes or {})
    _fix_shapes(model, spec, sizes)
    if rewritten:
        owners += halve_gated_projections(model)
    if rewritten:
        convolve_before_doubling(model)
    if branches:
        owners += convolve_products(model)
    split = split_sinusoids(model) if options["INFERENCE_PRECISION_HINT"] == "bf16" else None
    *before, network = (model,) if split is None else split
    if branches:
        network = with_static_branches(network, [_shapes(spec, axes, before) for axes in branches])
    parts = (*before, network)
    remaining = set(extra_outputs)
    for part in parts:
        remaining -= mark_outputs(part, remaining)
    options_of_parts = _options_of_parts(len(parts), options)
    models = [core().compile_model(part, DEVICE, dict(o)) for part, o in zip(parts, options_of_parts, strict=True)]
    return CompiledVariant(models, owners)


def _with_changes(model: Any, changes: Overlay) -> list[Any]:
    """Replace constants by other weights; return the tensors that hold them, which the model does not keep alive."""
    if not changes:
        return []
    from openvino import opset13 as ops

    tensors = []
    constants = {op.get_friendly_name(): op for op in model.get_ordered_ops() if op.get_type_name() == "Constant"}
    for name, array in changed_tensors(changes, constants):
        constant = constants[name]
        port = constant.output(0)
        tensors.append(library().Tensor(array, port.get_shape(), port.get_element_type()))
        other = ops.constant(tensors[-1], shared_memory=True)
        for consumer in list(port.get_target_inputs()):
            consumer.replace_source_output(other.output(0))
    return tensors


def _shapes(spec: ComponentSpec, axes: Mapping[str, int], before: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all inputs, and of the outputs of the models that run before."""
    shapes = {tensor.name: tensor.resolve(axes) for tensor in spec.inputs}
    for model in before:
        resized = model.clone()
        resized.reshape(
            {port.get_any_name(): library().PartialShape(shapes[port.get_any_name()]) for port in resized.inputs}
        )
        shapes |= {port.get_any_name(): tuple(port.get_shape()) for port in resized.outputs}
    return shapes


def _options_of_parts(count: int, options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the compiler's options for each part: the last is the network, those before it are small and exact."""
    exact = {**options, "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return [exact] * (count - 1) + [options]


def _fix_shapes(model: Any, spec: ComponentSpec, sizes: Mapping[str, int]) -> None:
    """Make axes of the model static."""
    if not sizes:
        return

    def size_of(dim: int | str) -> int:
        axis = split_dim(dim)[1] if isinstance(dim, str) else None
        if axis is not None and axis not in sizes:
            return -1
        return resolve_dim(dim, sizes)

    names = {port.get_any_name() for port in model.inputs}
    shapes = {t.name: [size_of(dim) for dim in t.shape] for t in spec.inputs if t.name in names}
    model.reshape({name: library().PartialShape(shape) for name, shape in shapes.items()})
