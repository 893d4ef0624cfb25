"""Cuts the sinusoids of timesteps and sizes off an OpenVINO model, so that they can be computed in float32.

In bfloat16 a timestep of 999 becomes 1000, and the phase of the sinusoid with it: SDXL's size embedding was left with
18 dB. OpenVINO lowers every node above the last convolution and offers no way to exempt one.
"""

from collections.abc import Iterable
from typing import Any

__all__ = ["split_sinusoids"]


def split_sinusoids(model: Any) -> tuple[Any, Any] | None:
    """Split a model at the outputs of its sines and cosines.

    Args:
        model: an ``openvino.Model``; it is split in place and must not be used afterwards.

    Returns:
        Two models: the first computes the sinusoids from the inputs that they need; the second computes the outputs
        from the other inputs and the sinusoids, which have the same names in both. None where there are no sinusoids:
        then the model is unchanged.

    """
    import openvino
    from openvino import opset13 as ops

    waves = [node for node in model.get_ordered_ops() if node.get_type_name() in ("Sin", "Cos")]
    if not waves:
        return None
    results, stand_ins = [], []
    for i, wave in enumerate(waves):
        output, name = wave.output(0), f"sinusoid_{i}"
        stand_in = ops.parameter(output.get_partial_shape(), output.get_element_type(), name=name)
        stand_in.output(0).set_names({name})
        for consumer in output.get_target_inputs():
            consumer.replace_source_output(stand_in.output(0))
        output.set_names({name})
        results.append(ops.result(output))
        stand_ins.append(stand_in)
    parameters = [*model.get_parameters(), *stand_ins]
    before = openvino.Model(results, _needed(results, parameters), "sinusoids")
    return before, openvino.Model(model.get_results(), _needed(model.get_results(), parameters), "rest")


def _needed(results: Iterable[Any], parameters: Iterable[Any]) -> list[Any]:
    """Return the parameters that the results depend on."""
    seen: set[str] = set()
    left = list(results)
    while left:
        node = left.pop()
        if node.get_friendly_name() not in seen:
            seen.add(node.get_friendly_name())
            left += [port.get_source_output().get_node() for port in node.inputs()]
    return [parameter for parameter in parameters if parameter.get_friendly_name() in seen]
