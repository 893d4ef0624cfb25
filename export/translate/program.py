"""Walks a traced program and assembles the ONNX model."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnx_ir as ir
import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from ...engines.errors import ExportError
from ...engines.spec import ComponentSpec
from .builder import DTYPES, Builder
from .operators import OPERATORS

__all__ = ["OPSET", "Translated", "graph_from_program", "remove_unused"]

OPSET = 23
"""ONNX operator set of every graph: the first with ``Attention``."""


class Translated(NamedTuple):
    """A graph, and the ONNX values of the traced nodes.

    Attributes:
        model: the graph.
        names: the ONNX value of each traced node that makes one tensor, by name.

    """

    model: ir.Model
    names: dict[fx.Node, str]


def graph_from_program(
    program: ExportedProgram, spec: ComponentSpec, weights: Mapping[str, ir.TensorProtocol]
) -> Translated:
    """Translate a traced component.

    Args:
        program: traced with the spec's inputs, flattened in the spec's order.
        spec: names the graph's inputs, outputs and axes.
        weights: external tensors by parameter name of the traced module; those of another type than the traced
            parameter are cast in the graph.

    Returns:
        The model, whose initialisers are the weights it uses, none of them read, and the names of its values.

    Raises:
        ExportError: the program uses an operator or a weight that is not known.

    """
    b = Builder()
    values: dict[fx.Node, Any] = {}
    inputs: list[ir.Value] = []
    initialisers: dict[str, ir.Value] = {}
    kinds = {s.arg.name: s for s in program.graph_signature.input_specs}
    tensors = iter(spec.inputs)
    outputs: Sequence[fx.Node] = ()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            described = kinds[node.name]
            if described.kind == InputKind.USER_INPUT:
                if node.meta.get("val") is None:
                    continue
                tensor = next(tensors)
                values[node] = ir.Value(
                    name=tensor.name,
                    type=ir.TensorType(DTYPES[node.meta["val"].dtype]),
                    shape=ir.Shape(tensor.shape),
                )
                inputs.append(values[node])
            elif described.kind != InputKind.PARAMETER:
                raise ExportError(f"{spec.name}: {described.target} is neither an input nor a weight")
            elif node.users:
                values[node] = _parameter(b, node, str(described.target), weights, initialisers, spec)
        elif node.op == "call_function":
            values[node] = _call(b, node, values, spec)
        elif node.op == "output":
            outputs = node.args[0]
    graph_outputs = _name_outputs(b, [(values[n], DTYPES[n.meta["val"].dtype]) for n in outputs], spec)
    graph = ir.Graph(
        inputs,
        graph_outputs,
        nodes=b.nodes,
        initializers=[*initialisers.values(), *b.constants.values()],
        opset_imports={"": OPSET},
        name=spec.name,
    )
    remove_unused(graph)
    model = ir.Model(graph, ir_version=11, producer_name="sdengine")
    made = {node: value for node, value in values.items() if isinstance(node.meta["val"], torch.Tensor)}
    return Translated(model, {node: str(value.name) for node, value in made.items()})


def _parameter(
    b: Builder,
    node: fx.Node,
    name: str,
    weights: Mapping[str, ir.TensorProtocol],
    initialisers: dict[str, ir.Value],
    spec: ComponentSpec,
) -> ir.Value:
    if name not in weights:
        raise ExportError(f"{spec.name}: the weights have no {name}")
    tensor = weights[name]
    expected = node.meta["val"]
    if tuple(tensor.shape) != tuple(expected.shape):
        raise ExportError(f"{spec.name}: {name} has shape {list(tensor.shape)}, the config says {list(expected.shape)}")
    value = ir.Value(
        name=tensor.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(list(expected.shape)), const_value=tensor
    )
    initialisers[str(tensor.name)] = value
    dtype = DTYPES[expected.dtype]
    return value if tensor.dtype == dtype else b.op("Cast", [value], {"to": dtype})


def _call(b: Builder, node: fx.Node, values: Mapping[fx.Node, Any], spec: ComponentSpec) -> Any:
    translate = OPERATORS.get(node.target)
    if translate is None:
        raise ExportError(f"{spec.name}: operator {node.target} is not translated (in {node.format_node()})")

    def known(argument: Any) -> Any:
        return values[argument] if isinstance(argument, fx.Node) else argument

    args = fx.map_arg(node.args, known)
    kwargs = fx.map_arg(node.kwargs, known)
    return translate(b, node, *args, **kwargs)


def _name_outputs(b: Builder, values: Sequence[tuple[ir.Value, ir.DataType]], spec: ComponentSpec) -> list[ir.Value]:
    """Give the outputs their names and, where the network computes in another type, the spec's type."""
    if len(values) != len(spec.outputs):
        raise ExportError(f"{spec.name}: {len(values)} outputs traced, the spec has {len(spec.outputs)}")
    named = []
    for (traced, dtype), tensor in zip(values, spec.outputs, strict=True):
        output_type = DTYPES[getattr(torch, tensor.dtype)]
        value = traced if dtype == output_type else b.op("Cast", [traced], {"to": output_type})
        if value.producer() is None or value in named:
            value = b.op("Identity", [value])
        value.name = tensor.name
        value.type = ir.TensorType(output_type)
        value.shape = ir.Shape(tensor.shape)
        named.append(value)
    return named


def remove_unused(graph: ir.Graph) -> None:
    """Remove nodes whose results nothing uses (mostly shapes), and the initialisers that only they used."""
    graph_outputs = set(graph.outputs)
    for node in reversed(list(graph)):
        if not any(value in graph_outputs or value.uses() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
