"""Splits the projection of gated linear units, so that OpenVINO need not split what it has computed.

``chunk(x @ W + b)`` is ``x @ W[:n] + b[:n]`` and ``x @ W[n:] + b[n:]``: the same sums. OpenVINO copies both halves of a
wide result to split it, and cannot fuse the GELU of one half into the product; of halved constants it does neither.
"""

from typing import Any

__all__ = ["halve_gated_projections"]


def halve_gated_projections(model: Any) -> int:
    """Rewrite every split in two halves of a product with constant weights, and its bias, in place.

    Args:
        model: an ``openvino.Model``.

    Returns:
        How many have been rewritten.

    """
    done = 0
    for split in model.get_ordered_ops():
        if split.get_type_name() not in ("Split", "VariadicSplit") or split.get_output_size() != 2:
            continue
        add = split.input_value(0).get_node()
        found = _projection(add)
        if found is None or len(add.output(0).get_target_inputs()) != 1:
            continue
        product, weights, bias = found
        for half in range(2):
            replacement = _half_of(product, weights, bias, half)
            for consumer in split.output(half).get_target_inputs():
                consumer.replace_source_output(replacement)
        done += 1
    return done


def _constant(node: Any) -> bool:
    """Whether a node is computed from constants alone: weights are converted and transposed on their way."""
    if node.get_type_name() == "Constant":
        return True
    if node.get_type_name() not in ("Convert", "Transpose"):
        return False
    return all(_constant(port.get_source_output().get_node()) for port in node.inputs())


def _projection(add: Any) -> tuple[Any, Any, Any] | None:
    """Return the product, its weights and the bias [out], where a node adds a bias to a product."""
    if add.get_type_name() != "Add":
        return None
    sides = [add.input_value(i) for i in range(2)]
    products = [s for s in sides if s.get_node().get_type_name() == "MatMul"]
    biases = [s for s in sides if _constant(s.get_node())]
    if len(products) != 1 or len(biases) != 1:
        return None
    product = products[0].get_node()
    attributes = product.get_attributes()
    weights = product.input_value(1)
    fits = not attributes["transpose_a"] and _constant(weights.get_node()) and len(weights.get_partial_shape()) == 2
    return (product, weights, biases[0]) if fits and len(biases[0].get_partial_shape()) == 1 else None


def _half_of(product: Any, weights: Any, bias: Any, half: int) -> Any:
    import numpy as np
    from openvino import opset13 as ops

    transposed = product.get_attributes()["transpose_b"]
    axis = 0 if transposed else 1
    width = weights.get_partial_shape()[axis].get_length() // 2

    def cut(value: Any, axis: int) -> Any:
        bounds = [np.array([n], np.int64) for n in (half * width, (half + 1) * width, 1, axis)]
        start, stop, step, axes = (ops.constant(n) for n in bounds)
        return ops.slice(value, start, stop, step, axes)

    halved = ops.matmul(product.input_value(0), cut(weights, axis), False, transposed)
    return ops.add(halved, cut(bias, 0)).output(0)
