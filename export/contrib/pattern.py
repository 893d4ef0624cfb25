"""Finds nodes around a node of a graph, and replaces nodes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["constant", "contributed", "ints_of", "made_by", "only_user", "permutes", "replace"]


def made_by(value: ir.Value | None, kind: str) -> ir.Node | None:
    """Return the node that makes a value, if it is of that kind."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == kind else None


def only_user(value: ir.Value, kind: str) -> ir.Node | None:
    """Return the one node that uses a value, if it is of that kind and nothing else uses the value."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    node = uses[0].node
    return node if node.op_type == kind else None


def ints_of(value: ir.Value | None) -> list[int] | None:
    """Return the numbers of a constant int64 vector of the graph."""
    tensor = None if value is None else value.const_value
    if tensor is None or isinstance(tensor, ir.ExternalTensor) or tensor.dtype != ir.DataType.INT64:
        return None
    return [int(n) for n in tensor.numpy().reshape(-1)]


def permutes(node: ir.Node, *perm: int) -> bool:
    """Whether a ``Transpose`` is this one."""
    return tuple(node.attributes["perm"].as_ints()) == perm


def constant(graph: ir.Graph, name: str, array: Any) -> ir.Value:
    """Return the graph's constant of that name, making it the first time."""
    if name not in graph.initializers:
        numbers = np.asarray(array)
        tensor = ir.tensor(numbers, name=name)
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(numbers.shape), const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]


def contributed(
    kind: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any], *, outputs: int = 1
) -> ir.Node:
    """Make a node of one of ONNX Runtime's own operators."""
    return ir.node(kind, inputs, dict(attributes), domain="com.microsoft", num_outputs=outputs)


def replace(graph: ir.Graph, old: ir.Node, new: Sequence[ir.Node]) -> None:
    """Replace a node by others; the last of them computes the old one's output."""
    values = [value for node in new for value in node.outputs]
    for i, value in enumerate(values):
        value.name = f"{old.outputs[0].name}_{i}"
    ir.convenience.replace_nodes_and_values(graph, old, [old], new, [old.outputs[0]], [new[-1].outputs[0]])
