"""``GroupNormalization`` -> ``InstanceNormalization`` over the groups, then a factor and an offset a channel.

ONNX Runtime has no kernel of the first for CPUs: it spells each one out in 29 nodes.
"""

import numpy as np
import onnx_ir as ir

from .pattern import constant, replace

__all__ = ["spell_group_norms"]


def spell_group_norms(graph: ir.Graph) -> int:
    """Rewrite every group norm.

    The factors and offsets are those of a ``BatchNormalization`` with mean 0 and variance 1, which is one node for what
    a product and a sum would need two for.
    """
    nodes = [node for node in graph if node.op_type == "GroupNormalization"]
    for node in nodes:
        x, weight, bias = node.inputs
        assert weight is not None and bias is not None
        groups, epsilon = node.attributes["num_groups"].as_int(), node.attributes["epsilon"].as_float()
        channels = int(_length(weight))
        shape = ir.node("Shape", [x])
        grouped = ir.node("Reshape", [x, constant(graph, f"groups_{groups}", np.array([0, groups, -1]))])
        normal = ir.node(
            "InstanceNormalization",
            [grouped.outputs[0], _filled(graph, groups, 1), _filled(graph, groups, 0)],
            {"epsilon": epsilon},
        )
        back = ir.node("Reshape", [normal.outputs[0], shape.outputs[0]])
        affine = ir.node(
            "BatchNormalization",
            [back.outputs[0], weight, bias, _filled(graph, channels, 0), _filled(graph, channels, 1)],
            {"epsilon": 0.0},
        )
        replace(graph, node, [shape, grouped, normal, back, affine])
    return len(nodes)


def _length(value: ir.Value) -> int:
    """Return the length of a vector of weights, which may have been cast."""
    node = value.producer()
    source = value if node is None else node.inputs[0]
    assert source is not None and source.shape is not None
    return int(source.shape[0])  # type: ignore[arg-type]


def _filled(graph: ir.Graph, length: int, number: int) -> ir.Value:
    return constant(graph, f"{('zeros', 'ones')[number]}_{length}", np.full(length, number, np.float32))
