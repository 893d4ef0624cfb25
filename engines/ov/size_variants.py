"""One model that is several: for lengths that it is tuned for, and for all others. They share their weights.

OpenVINO makes a faster network for lengths that it knows; above all, transposes that only change the layout are
left out of it. Compiled by itself, such a network would pack the weights once more, gigabytes of them. The branches of
an ``If`` are compiled together, and what both pack alike is packed once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["tuned_or_open"]


def tuned_or_open(model: Any, choices: Sequence[Mapping[str, tuple[int, ...]]]) -> Any:
    """Return a model that does what this one does, and sooner where the inputs are of some shapes.

    Args:
        model: an ``openvino.Model``; it becomes one of the branches and must not be used afterwards. Its constants
            should be computed with as they are: what the compiler makes of a constant it makes for each branch.
        choices: what to be faster at: the shapes of all inputs, by name. The likeliest first.

    Returns:
        The new model; the one that was given, where it leaves no length open.

    """
    if not model.is_dynamic():
        return model
    chosen = [(_tuned(model, shapes), shapes) for shapes in choices]
    for then, shapes in reversed(chosen):
        model = _either(then, model, shapes)
    return model


def _either(then: Any, otherwise: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return a model of two: one for these shapes, one for others."""
    import openvino
    from openvino import opset13 as ops

    inputs = [
        ops.parameter(port.get_partial_shape(), port.get_element_type(), name=port.get_any_name())
        for port in otherwise.inputs
    ]
    for parameter, port in zip(inputs, otherwise.inputs, strict=True):
        parameter.output(0).set_names(port.get_names())
    branches = ops.if_op(_met(inputs, shapes).output(0))
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


def _tuned(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return a model told its shapes from within: an ``If`` tells its branches only what it knows itself."""
    from openvino import opset13 as ops

    tuned = model.clone()
    for parameter in tuned.get_parameters():
        port = parameter.output(0)
        shape = ops.constant(np.array(shapes[port.get_any_name()], np.int64))
        consumers = list(port.get_target_inputs())
        known = ops.reshape(parameter, shape, False)
        for consumer in consumers:
            consumer.replace_source_output(known.output(0))
    tuned.validate_nodes_and_infer_types()
    return tuned


def _met(inputs: list[Any], shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return whether every length that is open is the tuned one."""
    from openvino import opset13 as ops

    met = []
    for tensor in inputs:
        shape, wanted = tensor.get_partial_shape(), shapes[tensor.output(0).get_any_name()]
        axes = np.array([i for i, dim in enumerate(shape) if dim.is_dynamic], np.int64)
        if axes.size:
            lengths = ops.gather(ops.shape_of(tensor), ops.constant(axes), ops.constant(0, np.int64))
            met.append(ops.equal(lengths, ops.constant(np.array(wanted, np.int64)[axes])))
    return ops.reduce_logical_and(ops.concat(met, 0), ops.constant(np.array([0], np.int64)), False)
