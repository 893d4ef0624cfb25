"""Compares a bundle's graph with what the network is traced to now."""

from collections.abc import Iterable

import onnx
import onnx_ir as ir

from ...engines.errors import EngineError
from .subject import Subject

__all__ = ["differences_from_trace"]

_MOST = 0.1


def differences_from_trace(subject: Subject) -> dict[str, str]:
    """Say, by the first value that it makes, how each node of the graph differs from the traced one.

    Raises:
        EngineError: so many do that the values' names cannot mean the same.

    """
    traced = ir.to_proto(subject.traced.model)
    there = {node.output[0]: node for node in traced.graph.node}
    found = {}
    for node in subject.model.graph.node:
        name = node.output[0]
        if name not in there:
            found[name] = "the network is traced to no such node"
        elif difference := _difference(node, there[name]):
            found[name] = f"the network is traced to {difference}"
    missing = there.keys() - {name for node in subject.model.graph.node for name in node.output}
    if len(found) + len(missing) > _MOST * len(there):
        raise EngineError(
            f"{subject.graph.file} is not what this version of sdengine traces, so that its layers cannot be found in "
            "torch; export the bundle again, or use --against onnxruntime"
        )
    constants, traced_constants = _constants(subject.model), _constants(traced)
    other = {name for name, tensor in constants.items() if traced_constants.get(name) != tensor}
    for node in subject.model.graph.node:
        for name in other.intersection(node.input):
            found.setdefault(node.output[0], f"the network is traced to another {name}")
    return found


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
    found = {a.name: onnx.helper.get_attribute_value(a) for a in attributes}
    return {n: v.SerializeToString() if isinstance(v, onnx.TensorProto) else v for n, v in found.items()}


def _constants(model: onnx.ModelProto) -> dict[str, bytes]:
    """Return what lies in the graph itself."""
    return {w.name: w.SerializeToString() for w in model.graph.initializer if not w.external_data}
