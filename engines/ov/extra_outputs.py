"""Adds outputs to an OpenVINO model for values that it computes inside, for debugging."""

from collections.abc import Collection
from typing import Any

__all__ = ["PREFIX", "mark_outputs"]

PREFIX = "marked:"
"""Before the name of a value of a half precision, in the name of its output."""


def mark_outputs(model: Any, names: Collection[str]) -> set[str]:
    """Add an output, in float32 where it is of a half precision, for every value of the model that has such a name.

    Args:
        model: an ``openvino.Model``, changed in place.
        names: of values in the ONNX graph that it was read from, which rewriting it may have removed.

    Returns:
        Those of the names that are in the model.

    """
    import openvino
    from openvino import opset13 as ops

    results: list[Any] = []
    marked: set[str] = set()
    for node in model.get_ordered_ops():
        if node.get_type_name() in ("Parameter", "Result"):
            continue
        for output in node.outputs():
            for name in sorted((output.get_names() & set(names)) - marked):
                marked.add(name)
                if output.get_element_type() not in (openvino.Type.bf16, openvino.Type.f16):
                    results.append(ops.result(output))
                    continue
                shown = ops.convert(output, openvino.Type.f32)  # numpy has no bfloat16
                shown.output(0).set_names({f"{PREFIX}{name}"})
                results.append(ops.result(shown))
    model.add_results(results)
    return marked
