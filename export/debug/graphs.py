"""Graphs with other outputs, and in float32."""

from collections.abc import Collection

import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["in_float32", "with_outputs"]

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def with_outputs(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return a graph whose outputs are these values and no others; what they do not need is not computed."""
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    graph = marked.graph
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    del graph.output[:]
    graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in names)
    return marked


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that computes in float32 what another computes in half precisions.

    Values have the names that they have there. Weights stay as they are stored, and are cast: every value of a half
    precision is a float32 value too.
    """
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph = wide.graph
    casts = {w.name: f"{w.name}.float32" for w in graph.initializer if w.data_type in _HALVES}
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = casts.get(name, name)
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT
            elif attribute.HasField("t") and attribute.t.data_type in _HALVES:
                attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype("float32")))
    nodes = [helper.make_node("Cast", [n], [cast], name=cast, to=TensorProto.FLOAT) for n, cast in casts.items()]
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return wide
