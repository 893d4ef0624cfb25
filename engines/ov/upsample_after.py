"""Convolves before doubling the size, not after: four small kernels on the small map, not a large one on the large map.

After nearest-neighbour doubling, every 2x2 block of pixels is one pixel four times, so a 3x3 kernel sees only 2x2
different values, at one of four phases. The taps that meet the same value can be added up beforehand: 16 products per
pixel and channel instead of 36. The result is the same but for the order of its sums.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["convolve_before_doubling", "phase_kernels"]


def phase_kernels(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the kernels of the four phases, [O, I, 3, 3] -> [2, 2, O, I, 2, 2]: vertical phase, horizontal phase."""
    summed = _sums(_sums(weights))  # [vertical phase, tap, horizontal phase, tap, O, I]
    return summed.transpose(0, 2, 4, 5, 1, 3)


def _sums(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return, per phase and tap of the small map, the sum of the taps that meet it, [..., 3] -> [2, 2, ...]."""
    first, middle, last = np.moveaxis(weights, -1, 0)
    return np.array([[first, middle + last], [first + middle, last]])


def convolve_before_doubling(model: Any) -> int:
    """Rewrite every 3x3 convolution of a map doubled by nearest neighbours, in place.

    Args:
        model: an ``openvino.Model``. Only maps with static height and width are rewritten: where the size is no
            multiple of the coarsest level's, a map is not exactly doubled.

    Returns:
        How many have been rewritten.

    """
    done = 0
    for node in model.get_ordered_ops():
        weights = _weights(node) if node.get_type_name() == "Convolution" and _doubles(node) else None
        if weights is not None:
            replacement = _rewritten(node, weights)
            for consumer in node.output(0).get_target_inputs():
                consumer.replace_source_output(replacement)
            done += 1
    return done


def _doubles(convolution: Any) -> bool:
    attributes = convolution.get_attributes()
    required = {"strides": [1, 1], "dilations": [1, 1], "pads_begin": [1, 1], "pads_end": [1, 1]}
    if any(list(attributes[name]) != value for name, value in required.items()):
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
    """Return the value before its conversions: a bfloat16 number stays the same in float32 and back."""
    while value.get_node().get_type_name() == "Convert":
        value = value.get_node().input_value(0)
    return value


def _weights(convolution: Any) -> NDArray[np.float32] | None:
    node = _unconverted(convolution.input_value(1)).get_node()
    if node.get_type_name() != "Constant" or list(node.get_output_shape(0))[2:] != [3, 3]:
        return None
    weights: NDArray[np.float32] = node.get_data(dtype=np.float32)
    return weights


def _rewritten(convolution: Any, weights: NDArray[np.float32]) -> Any:
    from openvino import opset13 as ops

    dtype = convolution.get_output_element_type(0)
    small = _unconverted(_unconverted(convolution.input_value(0)).get_node().input_value(0))
    if small.get_element_type() != dtype:
        small = ops.convert(small, dtype).output(0)
    kernels = phase_kernels(weights)
    phases = [
        ops.convolution(
            small,
            _constant(kernels[p, q], dtype),
            [1, 1],
            [1 - p, 1 - q],
            [p, q],
            [1, 1],
        )
        for p in range(2)
        for q in range(2)
    ]
    return ops.depth_to_space(ops.concat(phases, 1), "blocks_first", 2).output(0)


def _constant(values: NDArray[np.float32], dtype: Any) -> Any:
    """Return a constant of the type; for bfloat16 ``ops.constant`` would convert every value to a Python number."""
    import openvino
    from openvino import opset13 as ops

    values = np.ascontiguousarray(values)
    if dtype != openvino.Type.bf16:
        return ops.constant(values, dtype=dtype)
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # to the nearest, ties to even
    tensor = openvino.Tensor(dtype, openvino.Shape(list(values.shape)))
    tensor.data.view(np.uint16)[:] = rounded
    return openvino.op.Constant(tensor)
