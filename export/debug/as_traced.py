"""Compares a bundle's graph with a new trace of the network."""

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from ...engines.errors import EngineError
from .subject import Subject

__all__ = ["differences_from_trace"]

_MOST = 0.1


def differences_from_trace(subject: Subject) -> dict[str, str]:
    """Return how nodes of the graph differ from the traced ones, by the first value that each node computes.

    Raises:
        EngineError: so many do that the values' names cannot mean the same.

    """
    traced = ir.to_proto(subject.traced.model)
    there = {node.output[0]: node for node in traced.graph.node}
    differences = {}
    for node in subject.model.graph.node:
        name = node.output[0]
        if name not in there:
            differences[name] = "the network is traced to no such node"
        elif difference := _difference(node, there[name]):
            differences[name] = f"the network is traced to {difference}"
    missing = there.keys() - {name for node in subject.model.graph.node for name in node.output}
    if len(differences) + len(missing) > _MOST * len(there):
        raise EngineError(
            f"{subject.graph.file} is not what this version of sdengine traces, so that its layers cannot be found in "
            "torch; export the bundle again, or use --against onnxruntime"
        )
    constants, traced_constants = _constants(subject.model), _constants(traced)
    other = {name for name, tensor in constants.items() if traced_constants.get(name) != tensor}
    for node in subject.model.graph.node:
        for name in other.intersection(node.input):
            differences.setdefault(node.output[0], f"the network is traced to another {name}")
    return differences


def _difference(node: onnx.NodeProto, traced: onnx.NodeProto) -> str:
    if node.op_type != traced.op_type:
        return traced.op_type
    if list(node.input) != list(traced.input):
        return f"one with the inputs {', '.join(traced.input)}"
    here, there = _attributes(node.attribute), _attributes(traced.attribute)
    for name in there.keys() | here.keys():
        if here.get(name) != there.get(name):
            return f"one with {name} {_text(there.get(name))}, not {_text(here.get(name))}"
    return ""


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _attributes(attributes: Iterable[onnx.AttributeProto]) -> dict[str, object]:
    values = {a.name: onnx.helper.get_attribute_value(a) for a in attributes}
    return {n: v.SerializeToString() if isinstance(v, onnx.TensorProto) else v for n, v in values.items()}


def _constants(model: onnx.ModelProto) -> dict[str, bytes]:
    """Return the tensors that are inside the graph itself."""
    return {w.name: w.SerializeToString() for w in model.graph.initializer if not w.external_data}
