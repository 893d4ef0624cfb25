"""Splits the projection of gated linear units, so that OpenVINO need not split the result.

``chunk(x @ W + b)`` is ``x @ W[:n] + b[:n]`` and ``x @ W[n:] + b[n:]``: the same sums. To split a wide result, OpenVINO
copies both halves, and it cannot fuse the GELU of one half into the product; where the weights are split it need not
copy, and fuses. Halves of weights are not copied: they stay where they are, in the mapped file.
"""

from typing import Any

import numpy as np

__all__ = ["halve_gated_projections"]


def halve_gated_projections(model: Any) -> list[Any]:
    """Rewrite, in place, every split into two halves that follows a product with constant weights and its bias.

    Args:
        model: an ``openvino.Model``.

    Returns:
        The weights of the products that were rewritten. The halves use their memory: keep them alive for as long as
        anything that was compiled from the model.

    """
    whole = []
    for split in model.get_ordered_ops():
        if split.get_type_name() not in ("Split", "VariadicSplit") or split.get_output_size() != 2:
            continue
        add = split.input_value(0).get_node()
        projection = _projection(add)
        if projection is None or len(add.output(0).get_target_inputs()) != 1:
            continue
        product, weights, bias = projection
        for half in range(2):
            replacement = _half_of(product, weights, bias, half)
            for consumer in split.output(half).get_target_inputs():
                consumer.replace_source_output(replacement)
        whole.append(_stored(weights))
    return whole


def _constant(node: Any) -> bool:
    """Whether a node is computed from constants alone: weights are converted and transposed on their way."""
    if node.get_type_name() == "Constant":
        return True
    if node.get_type_name() not in ("Convert", "Transpose"):
        return False
    return all(_constant(port.get_source_output().get_node()) for port in node.inputs())


def _stored(value: Any) -> Any:
    """Return the constant that a value is converted or transposed from."""
    node = value.get_node()
    return node if node.get_type_name() == "Constant" else _stored(node.input_value(0))


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
    from openvino import opset13 as ops

    transposed = product.get_attributes()["transpose_b"]
    halved = ops.matmul(product.input_value(0), _half(weights, 0 if transposed else 1, half), False, transposed)
    return ops.add(halved, _half(bias, 0, half)).output(0)


def _half(value: Any, axis: int, half: int) -> Any:
    """Return half of a constant along an axis; a half that is contiguous in memory is not copied."""
    import openvino
    from openvino import opset13 as ops

    node, shape = value.get_node(), [dim.get_length() for dim in value.get_partial_shape()]
    kind = node.get_type_name()
    if kind == "Convert":
        return ops.convert(_half(node.input_value(0), axis, half), value.get_element_type())
    if kind == "Transpose" and len(shape) == 2:
        return ops.transpose(_half(node.input_value(0), 1 - axis, half), ops.constant(np.array([1, 0], np.int64)))
    width = shape[axis] // 2
    if kind == "Constant" and axis == 0 and len(shape) == 2:
        begin, end = [half * width, *[0] * (len(shape) - 1)], [(half + 1) * width, *shape[1:]]
        part = openvino.Tensor(node.get_tensor_view(), openvino.Coordinate(begin), openvino.Coordinate(end))
        return openvino.op.Constant(part, shared_memory=True)
    start, stop, step, axes = (
        ops.constant(np.array([n], np.int64)) for n in (half * width, (half + 1) * width, 1, axis)
    )
    return ops.slice(value, start, stop, step, axes)
