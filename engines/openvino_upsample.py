"""Convolves before doubling, not after: four small kernels on the small map instead of one large one on the large map.

After nearest-neighbour doubling, every 2x2 block of pixels is one pixel four times, so a 3x3 kernel sees only 2x2
different values, at one of four phases. Its taps that meet the same value can be added up beforehand: 16 products a
pixel and channel where there were 36, the same result but for the order of its sums.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["convolve_before_doubling", "phase_kernels"]

_SUMS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)
"""Per phase and tap of the small map, which of a 3-kernel's taps meet it."""


def phase_kernels(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the kernels of the four phases, [O, I, 3, 3] -> [2, 2, O, I, 2, 2]: vertical phase, horizontal phase."""
    kernels: NDArray[np.float32] = np.einsum("pay,qbx,oiyx->pqoiab", _SUMS, _SUMS, weights, optimize=True)
    return kernels


def convolve_before_doubling(model: Any) -> int:
    """Rewrite every 3x3 convolution of a map doubled by nearest neighbours, in place.

    Args:
        model: an ``openvino.Model``. Only where height and width are known is it known that they double: sizes that
            are no multiple of the coarsest level's make an odd map of an even one.

    Returns:
        How many have been rewritten.

    """
    done = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution" and _doubles(node) and _weights(node) is not None:
            replacement = _rewritten(node, _weights(node))
            for consumer in node.output(0).get_target_inputs():
                consumer.replace_source_output(replacement)
            done += 1
    return done


def _doubles(convolution: Any) -> bool:
    attributes = convolution.get_attributes()
    wanted = {"strides": [1, 1], "dilations": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1]}
    if any(list(attributes[name]) != value for name, value in wanted.items()):
        return False
    doubled = _unconverted(convolution.input_value(0))
    node = doubled.get_node()
    if node.get_type_name() != "Interpolate" or node.get_attributes()["mode"] != "nearest":
        return False
    small, large = node.input_value(0).get_partial_shape(), doubled.get_partial_shape()
    return all(
        small[axis].is_static and large[axis].is_static and large[axis].get_length() == 2 * small[axis].get_length()
        for axis in (2, 3)
    )


def _unconverted(value: Any) -> Any:
    """Return what is converted: copies of a bfloat16 number are the same number, whatever it is meanwhile."""
    while value.get_node().get_type_name() == "Convert":
        value = value.get_node().input_value(0)
    return value


def _weights(convolution: Any) -> NDArray[np.float32] | None:
    node = _unconverted(convolution.input_value(1)).get_node()
    if node.get_type_name() != "Constant" or list(node.get_output_shape(0))[2:] != [3, 3]:
        return None
    weights: NDArray[np.float32] = node.get_data(dtype=np.float32)
    return weights


def _rewritten(convolution: Any, weights: NDArray[np.float32] | None) -> Any:
    from openvino import opset13 as ops

    assert weights is not None
    dtype = convolution.get_output_element_type(0)
    small = _unconverted(_unconverted(convolution.input_value(0)).get_node().input_value(0))
    if small.get_element_type() != dtype:
        small = ops.convert(small, dtype).output(0)
    kernels = phase_kernels(weights)
    phases = [
        ops.convolution(
            small,
            ops.constant(np.ascontiguousarray(kernels[p, q]), dtype=dtype),
            [1, 1],
            [1 - p, 1 - q],
            [p, q],
            [1, 1],
        )
        for p in range(2)
        for q in range(2)
    ]
    return ops.depth_to_space(ops.concat(phases, 1), "blocks_first", 2).output(0)
