"""``Attention`` on split heads -> ``MultiHeadAttention`` on whole rows.

ONNX Runtime computes the first by writing all scores, [B, heads, N, M]: 1 GB for 4096 pixels, two rows and eight heads.
The second goes over them in tiles where nothing is masked, and splits and joins the heads itself.
"""

import onnx_ir as ir

from .pattern import contributed, ints_of, made_by, only_user, permutes, replace

__all__ = ["fuse_attention"]

_SWAPPED = (0, 2, 1, 3)


def fuse_attention(graph: ir.Graph) -> int:
    """Rewrite every attention whose heads are split before it and joined behind it.

    Before: ``Reshape`` to [B, N, heads, width] and ``Transpose`` to [B, heads, N, width] of queries, keys and values,
    ``Attention``, ``Transpose`` back and ``Reshape`` to [B, N, heads * width]. After: one node.
    """
    count = 0
    for node in [n for n in graph if n.op_type == "Attention"]:
        split = [_split_heads(value) for value in node.inputs[:3]]
        joined = _joined_heads(node.outputs[0])
        heads = {part[1] for part in split if part is not None}
        if joined is None or None in split or len(heads) != 1 or node.attributes["is_causal"].as_int():
            continue
        mask = node.inputs[3] if len(node.inputs) > 3 else None
        inputs = [part[0] for part in split if part is not None] + ([] if mask is None else [None, None, mask])
        attributes = {"num_heads": heads.pop(), "scale": node.attributes["scale"].as_float()}
        replace(graph, joined, [contributed("MultiHeadAttention", inputs, attributes)])
        count += 1
    return count


def _split_heads(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """Return the value that is split into heads, and the number of heads."""
    transpose = made_by(value, "Transpose")
    if transpose is None or not permutes(transpose, *_SWAPPED):
        return None
    reshape = made_by(transpose.inputs[0], "Reshape")
    if reshape is None or reshape.inputs[0] is None:
        return None
    shape = ints_of(reshape.inputs[1])
    if shape is None or len(shape) != 4 or shape[:2] != [0, 0] or shape[3] != -1:
        return None
    return reshape.inputs[0], shape[2]


def _joined_heads(value: ir.Value) -> ir.Node | None:
    """Return the node that joins the heads of a value again, if nothing else uses it before."""
    transpose = only_user(value, "Transpose")
    if transpose is None or not permutes(transpose, *_SWAPPED):
        return None
    reshape = only_user(transpose.outputs[0], "Reshape")
    return reshape if reshape is not None and ints_of(reshape.inputs[1]) == [0, 0, -1] else None
