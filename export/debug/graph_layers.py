"""The layers of a component: the nodes of its plain graph, in the order in which they run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from ...engines.spec import ComponentSpec

__all__ = ["GraphLayer", "chunks", "layers_of"]

_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 16: 2}
"""Of the element types of ``onnx.TensorProto`` that our graphs use."""


@dataclass(frozen=True, kw_only=True)
class GraphLayer:
    """A node of the plain graph.

    Attributes:
        node: its name.
        operator: its ONNX operator.
        inputs: names of the values and weights that it takes.
        outputs: names of the values that it computes.
        bytes: of its outputs, as far as their shapes can be inferred.

    """

    node: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    bytes: int


def layers_of(model: onnx.ModelProto, spec: ComponentSpec, axes: Mapping[str, int]) -> list[GraphLayer]:
    """Return the layers of a graph, with their sizes in bytes where the axes have these sizes."""
    sizes = _sizes(model, spec, axes)
    return [
        GraphLayer(
            node=node.name,
            operator=node.op_type,
            inputs=tuple(name for name in node.input if name),
            outputs=tuple(name for name in node.output if name),
            bytes=sum(sizes.get(name, 0) for name in node.output),
        )
        for node in model.graph.node
    ]


def chunks(layers: Sequence[GraphLayer], most: int) -> Iterator[list[GraphLayer]]:
    """Cut the layers into runs of neighbours whose outputs take at most ``most`` bytes; one alone may take more."""
    chunk: list[GraphLayer] = []
    size = 0
    for layer in layers:
        if chunk and size + layer.bytes > most:
            yield chunk
            chunk, size = [], 0
        chunk.append(layer)
        size += layer.bytes
    if chunk:
        yield chunk


def _sizes(model: onnx.ModelProto, spec: ComponentSpec, axes: Mapping[str, int]) -> dict[str, int]:
    """Return the bytes of every value whose shape onnx can infer."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    shapes = {tensor.name: tensor.resolve(axes) for tensor in spec.inputs}
    for graph_input in copy.graph.input:
        for dim, size in zip(graph_input.type.tensor_type.shape.dim, shapes[graph_input.name], strict=True):
            dim.Clear()
            dim.dim_value = size
    del copy.graph.value_info[:]
    for node in copy.graph.node:
        if node.op_type == "GroupNormalization":  # onnx infers nothing behind it; its result has its input's shape
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    sizes = {}
    for value in (*inferred.value_info, *inferred.output):
        tensor = value.type.tensor_type
        dims = [dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")]
        if tensor.HasField("shape") and len(dims) == len(tensor.shape.dim):
            sizes[value.name] = math.prod(dims) * _BYTES.get(tensor.elem_type, 8)
    return sizes
