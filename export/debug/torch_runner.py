"""A component in torch, node by node: the values of the ONNX graph, under their names there."""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from torch import fx
from torch.utils import _pytree

from ...engines.bundle.bundle import Bundle
from ...engines.engine import Array
from ...engines.spec import ComponentSpec
from ..trace import Traced, trace_program
from ..weights_file import external_tensors
from .graphs import in_float32

__all__ = ["TorchRunner", "trace_of"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_HALVES = (torch.float16, torch.bfloat16)


def trace_of(bundle: Bundle, component: str, precision: str) -> Traced:
    """Trace a component again, as it was traced for its graph of that precision."""
    record = bundle.component(component)
    weights = external_tensors(bundle.checked_file(bundle.manifest.networks[record.network].weights))
    spec = bundle.graph(component, precision).spec
    return trace_program(record.kind, bundle.config(record.network), spec, weights, dtype=_DTYPES[precision])


class TorchRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy has no types
    """Interprets what was traced.

    Args:
        traced: the component.
        spec: of its graph.
        names: of the values to compute.
        exact: compute in float32 whatever was traced in half precision; values that torch does not make by
            themselves, such as a product before its bias is added, are computed from torch's by onnx's reference
            implementation. Else compute as traced and leave such values out.

    """

    def __init__(self, traced: Traced, spec: ComponentSpec, names: Collection[str], *, exact: bool) -> None:
        super().__init__(name="torch")
        self._traced, self._spec, self._exact = traced, spec, exact
        self._graph = _Graph(traced.model, exact=exact)
        made = set(traced.names.values())
        self._names = [name for name in names if exact or name in made]
        self._needed = self._graph.needed(self._names, made)

    def get_input_metadata_impl(self) -> Any:
        """Polygraphy: names, types and shapes of the inputs."""
        metadata = TensorMetadata()
        for tensor in self._spec.inputs:
            dtype = "float32" if self._exact and tensor.dtype == "float16" else tensor.dtype
            metadata.add(tensor.name, np.dtype(dtype), [d if isinstance(d, int) else None for d in tensor.shape])
        return metadata

    def activate_impl(self) -> None:
        """Polygraphy: read the weights."""
        self._weights = _weights(self._traced, exact=self._exact)

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> Any:
        """Polygraphy: run once."""
        interpreter = _Interpreter(self._traced, self._needed, exact=self._exact)
        arguments = dict(self._weights)
        for node, name in self._traced.names.items():
            if node.op == "placeholder" and name in feed_dict:
                arguments[node] = torch.from_numpy(np.ascontiguousarray(feed_dict[name]))
        placeholders = [node for node in self._traced.program.graph.nodes if node.op == "placeholder"]
        with torch.inference_mode():
            interpreter.run(*(arguments.get(node) for node in placeholders))
        self.inference_time = 0.0  # nothing is timed here
        made = {name: _array(value) for name, value in interpreter.made.items()} | dict(feed_dict)
        return OrderedDict((name, self._graph.value(name, made)) for name in self._names)

    def deactivate_impl(self) -> None:
        """Polygraphy: release the weights."""
        del self._weights


class _Interpreter(fx.Interpreter):
    """Collects values by their ONNX names, and stops when it has all."""

    def __init__(self, traced: Traced, needed: Collection[str], *, exact: bool) -> None:
        super().__init__(traced.program.graph_module)
        # Several traced nodes may be one of the graph's, which makes what the last of them makes.
        last = {name: node for node, name in traced.names.items()}
        self._names = {last[name]: name for name in needed}
        self._exact = exact
        self.made: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        if len(self.made) == len(self._names) or (n.op == "call_function" and _only_checks(n)):
            return None
        value = super().run_node(n)
        if n in self._names:
            self.made[self._names[n]] = value
        return value

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        values = super().fetch_args_kwargs_from_env(n)
        if not self._exact:
            return values
        return _pytree.tree_map(lambda a: torch.float32 if isinstance(a, torch.dtype) and a in _HALVES else a, values)


def _only_checks(node: fx.Node) -> bool:
    """Whether a node makes nothing: torch traces checks of shapes, which hold for the sizes that it traced with."""
    return str(getattr(node.target, "__name__", node.target)).startswith(("_assert", "sym_constrain"))


def _weights(traced: Traced, *, exact: bool) -> dict[fx.Node, torch.Tensor]:
    """Read the weights that the graph has, by the placeholder that stands for them; the others no value needs."""
    stored = traced.model.graph.initializers
    targets = {s.arg.name: str(s.target) for s in traced.program.graph_signature.input_specs}
    weights = {}
    for node in traced.program.graph.nodes:
        name = targets.get(node.name, "").removeprefix("network.") if node.op == "placeholder" else ""
        if name in stored:
            dtype = node.meta["val"].dtype
            tensor = _tensor(_stored(stored[name].const_value))
            weights[node] = tensor.to(torch.float32 if exact and dtype in _HALVES else dtype)
    return weights


def _stored(tensor: Any) -> Array:
    """Return a weight or a constant as it is stored; onnx-ir itself reads no file that has a second hard link."""
    if not isinstance(tensor, ir.ExternalTensor):
        return np.asarray(tensor.numpy())
    dtype, shape = tensor.dtype.numpy(), tuple(tensor.shape.numpy())
    if 0 in shape:
        return np.empty(shape, dtype)
    return np.memmap(tensor.path, dtype, "r", tensor.offset or 0, shape or (1,)).reshape(shape)


def _tensor(array: Array) -> torch.Tensor:
    array = np.array(array)  # torch wants to be able to write
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _array(value: torch.Tensor) -> Array:
    return (value.float() if value.dtype in _HALVES else value).contiguous().numpy()


class _Graph:
    """A graph, which computes unknown values from known ones."""

    def __init__(self, model: ir.Model, *, exact: bool) -> None:
        proto = ir.to_proto(model)
        self._proto = in_float32(proto) if exact else proto
        self._makers = {name: node for node in self._proto.graph.node for name in node.output if name}
        self._weights = model.graph.initializers

    def needed(self, names: Collection[str], made: Collection[str]) -> set[str]:
        """Return those of ``made`` that the values called ``names`` are computed from, or are."""
        needed_names: set[str] = set()
        left, seen = list(names), set()
        while left:
            name = left.pop()
            if name in seen:
                continue
            seen.add(name)
            if name not in self._makers:
                continue  # a weight, a constant or an input
            if name in made:
                needed_names.add(name)
            else:
                left += [source for source in self._makers[name].input if source]
        return needed_names

    def value(self, name: str, known: dict[str, Array]) -> Array:
        """Return a value; it is known from then on."""
        if name not in known:
            if name in self._weights:
                known[name] = _stored(self._weights[name].const_value)
            else:
                node = self._makers[name]
                inputs = {i: self.value(i, known) for i in node.input if i}
                known |= dict(zip(node.output, self._evaluated(node, inputs), strict=True))
        return known[name]

    def _evaluated(self, node: onnx.NodeProto, values: Mapping[str, Array]) -> list[Array]:
        types = helper.np_dtype_to_tensor_dtype
        inputs = [helper.make_tensor_value_info(name, types(array.dtype), None) for name, array in values.items()]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
        graph = helper.make_graph([node], node.name, inputs, outputs)
        model = helper.make_model(graph, opset_imports=self._proto.opset_import)
        return [np.ascontiguousarray(array) for array in ReferenceEvaluator(model).run(None, dict(values))]
