"""One model with branches: for sizes that it is optimised for, and for all others. They share their weights.

OpenVINO makes a faster network for static shapes; above all, it drops transposes that only change the layout.
Compiled by itself, such a network would pack the weights once more, gigabytes of them. The branches of an ``If`` are
compiled together, and weights that both pack in the same way are packed once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["with_static_branches"]


def with_static_branches(model: Any, choices: Sequence[Mapping[str, tuple[int, ...]]]) -> Any:
    """Return a model that computes the same, and is faster for inputs of some shapes.

    Args:
        model: an ``openvino.Model``; it becomes one of the branches and must not be used afterwards. Its constants
            should need no conversion: what the compiler computes from a constant it computes for each branch.
        choices: what to be faster for: the shapes of all inputs, by name. The likeliest first.

    Returns:
        The new model; ``model`` itself where its shapes are static.

    """
    if not model.is_dynamic():
        return model
    branches = [(_with_shapes(model, shapes), shapes) for shapes in choices]
    for then, shapes in reversed(branches):
        model = _branch(then, model, shapes)
    return model


def _branch(then: Any, otherwise: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return a model that runs ``then`` for inputs of these shapes, and ``otherwise`` for others."""
    import openvino
    from openvino import opset13 as ops

    inputs = [
        ops.parameter(port.get_partial_shape(), port.get_element_type(), name=port.get_any_name())
        for port in otherwise.inputs
    ]
    for parameter, port in zip(inputs, otherwise.inputs, strict=True):
        parameter.output(0).set_names(port.get_names())
    branches = ops.if_op(_has_shapes(inputs, shapes).output(0))
    branches.set_then_body(then)
    branches.set_else_body(otherwise)
    for parameter, one, other in zip(inputs, then.get_parameters(), otherwise.get_parameters(), strict=True):
        branches.set_input(parameter.output(0), one, other)
    results = []
    for one, other in zip(then.get_results(), otherwise.get_results(), strict=True):
        output = branches.set_output(one, other)
        output.set_names(other.output(0).get_names())
        results.append(ops.result(output))
    return openvino.Model(results, inputs, "either")


def _with_shapes(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return a model with static shapes inside: a branch of an ``If`` sees only the shapes that the ``If`` has."""
    from openvino import opset13 as ops

    copy = model.clone()
    for parameter in copy.get_parameters():
        port = parameter.output(0)
        shape = ops.constant(np.array(shapes[port.get_any_name()], np.int64))
        consumers = list(port.get_target_inputs())
        reshaped = ops.reshape(parameter, shape, False)
        for consumer in consumers:
            consumer.replace_source_output(reshaped.output(0))
    copy.validate_nodes_and_infer_types()
    return copy


def _has_shapes(inputs: list[Any], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return a node that says whether the inputs have these shapes; only dynamic dimensions are compared."""
    from openvino import opset13 as ops

    equal = []
    for tensor in inputs:
        shape, expected = tensor.get_partial_shape(), shapes[tensor.output(0).get_any_name()]
        axes = np.array([i for i, dim in enumerate(shape) if dim.is_dynamic], np.int64)
        if axes.size:
            sizes = ops.gather(ops.shape_of(tensor), ops.constant(axes), ops.constant(0, np.int64))
            equal.append(ops.equal(sizes, ops.constant(np.array(expected, np.int64)[axes])))
    return ops.reduce_logical_and(ops.concat(equal, 0), ops.constant(np.array([0], np.int64)), False)
