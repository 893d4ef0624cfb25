"""Multiplies long sequences by weights as convolutions of one pixel, which OpenVINO does sooner in bfloat16.

A product ``[R, L, K] @ [K, N]`` computes the same sums as a 1x1 convolution of a map of L pixels with K channels, and
the memory layout is the same too: channels last. On AVX512-BF16, OpenVINO's convolutions come nearer to the processor's
peak than its products do (benchmarks/README.md). The transposes that are added here take no time where the number of
rows is static, see :mod:`.size_variants`.
"""

from typing import Any

import numpy as np

__all__ = ["convolve_products"]

_WIDTH = 640
"""Smallest width that gains: narrower products are left alone."""
_LENGTH = 256
"""Shortest sequence that gains."""


def convolve_products(model: Any) -> list[Any]:
    """Rewrite products with constant weights, in place, and with them a bias and a GELU that follow.

    Args:
        model: an ``openvino.Model``. Weights that it converts before it multiplies are left alone.

    Returns:
        The weights of the products that were rewritten. The convolutions use their memory: keep them alive for as long
        as anything that was compiled from the model.

    """
    rewritten = []
    for node in model.get_ordered_ops():
        if node.get_type_name() == "MatMul" and _fits(node):
            _rewrite(node)
            rewritten.append(node.input_value(1).get_node())
    return rewritten


def _fits(product: Any) -> bool:
    attributes = product.get_attributes()
    if attributes["transpose_a"] or not attributes["transpose_b"]:
        return False
    rows, weights = product.input_value(0).get_partial_shape(), product.input_value(1)
    if len(rows) != 3 or weights.get_node().get_type_name() != "Constant" or len(weights.get_partial_shape()) != 2:
        return False
    short = rows[1].is_static and rows[1].get_length() < _LENGTH
    return not short and min(dim.get_length() for dim in weights.get_partial_shape()) >= _WIDTH


def _rewrite(product: Any) -> None:
    from openvino import opset13 as ops

    one = ops.constant(np.array([1], np.int64))
    channels_first, channels_last = (ops.constant(np.array(order, np.int64)) for order in ((0, 3, 1, 2), (0, 2, 3, 1)))
    maps = ops.transpose(ops.unsqueeze(product.input_value(0), one), channels_first)
    result = ops.convolution(maps, _kernel(product.input_value(1).get_node()), [1, 1], [0, 0], [0, 0], [1, 1])
    last, after = product, _only_consumer(product)
    if after is not None and after.get_node().get_type_name() == "Add":
        bias = after.get_node().input_value(1 - after.get_index())
        if len(bias.get_partial_shape()) == 1:
            result = ops.add(result, ops.reshape(bias, ops.constant(np.array([-1, 1, 1], np.int64)), False))
            last, after = after.get_node(), _only_consumer(after.get_node())
    if after is not None and after.get_node().get_type_name() == "Gelu":
        last = after.get_node()
        result = ops.gelu(result, last.get_attributes()["approximation_mode"])
    result = ops.squeeze(ops.transpose(result, channels_last), one)
    for consumer in last.output(0).get_target_inputs():
        consumer.replace_source_output(result.output(0))


def _only_consumer(node: Any) -> Any:
    consumers = list(node.output(0).get_target_inputs())
    return consumers[0] if len(consumers) == 1 else None


def _kernel(weights: Any) -> Any:
    """Return weights [N, K] as a kernel [N, K, 1, 1] in the same memory."""
    import openvino

    stored = weights.get_tensor_view()
    octets = stored.data.reshape(-1).view(np.uint8)
    kernel = openvino.Tensor(octets, openvino.Shape([*stored.shape, 1, 1]), stored.element_type)
    return openvino.op.Constant(kernel, shared_memory=True)
