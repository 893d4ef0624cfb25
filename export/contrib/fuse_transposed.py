"""``MatMul`` with a transposed weight -> ``FusedMatMul``, which takes it as it is stored.

ONNX Runtime would transpose each weight while it opens the graph, on one thread, and pack it behind that all the same.
"""

import onnx_ir as ir

from .pattern import contributed, made_by, permutes, replace

__all__ = ["fuse_transposed_weights"]


def fuse_transposed_weights(graph: ir.Graph) -> int:
    """Rewrite every product with a matrix that a ``Transpose`` makes."""
    count = 0
    for node in [n for n in graph if n.op_type == "MatMul"]:
        transpose = made_by(node.inputs[1], "Transpose")
        if transpose is None or not permutes(transpose, 1, 0):
            continue
        replace(graph, node, [contributed("FusedMatMul", [node.inputs[0], transpose.inputs[0]], {"transB": 1})])
        count += 1
    return count
