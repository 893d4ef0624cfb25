"""A residual sum and the ``LayerNormalization`` of it -> ``SkipLayerNormalization``, which makes both in one pass."""

import onnx_ir as ir

from .pattern import contributed, made_by

__all__ = ["fuse_residual_norms"]


def fuse_residual_norms(graph: ir.Graph) -> int:
    """Rewrite every norm of what a linear layer adds to.

    Before: ``LayerNormalization(x + (product + bias))``, with other users of the sum or without. The product is of rank
    3, as linear layers are of rank 2 else, and x is of the same shape: no layer of ours adds to one that is broadcast.
    ONNX Runtime checks that at each run.
    """
    count = 0
    for norm in [n for n in graph if n.op_type == "LayerNormalization"]:
        total = made_by(norm.inputs[0], "Add")
        terms = None if total is None else _terms(total)
        if total is None or terms is None or norm.attributes["axis"].as_int() != -1:
            continue
        fused = contributed(
            "SkipLayerNormalization",
            [terms[0], terms[1], norm.inputs[1], norm.inputs[2], terms[2]],
            {"epsilon": norm.attributes["epsilon"].as_float()},
            outputs=4,
        )
        normal, mean, deviation, sum_ = fused.outputs
        mean.name = deviation.name = ""  # left out
        ir.convenience.replace_nodes_and_values(
            graph, total, [norm, total], [fused], [norm.outputs[0], total.outputs[0]], [normal, sum_]
        )
        count += 1
    return count


def _terms(total: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Return what is added to, the product and its bias."""
    for x, y in (total.inputs, reversed(total.inputs)):
        biased = made_by(y, "Add")
        if x is None or biased is None:
            continue
        product, bias = biased.inputs
        alone = len(list(biased.outputs[0].uses())) == 1
        if alone and product is not None and bias is not None and made_by(product, "FusedMatMul") is not None:
            return x, product, bias
    return None
