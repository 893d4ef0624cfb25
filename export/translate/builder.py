"""Appends nodes to an ONNX graph and records the ONNX value of each traced value."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

__all__ = ["DTYPES", "Builder"]

DTYPES: dict[torch.dtype, ir.DataType] = {
    torch.float32: ir.DataType.FLOAT,
    torch.float16: ir.DataType.FLOAT16,
    torch.bfloat16: ir.DataType.BFLOAT16,
    torch.uint8: ir.DataType.UINT8,
    torch.int64: ir.DataType.INT64,
    torch.int32: ir.DataType.INT32,
    torch.bool: ir.DataType.BOOL,
}


class Builder:
    """A graph under construction.

    Attributes:
        nodes: what has been appended.
        constants: small tensors that live in the graph file itself, shared by value.

    """

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def op(self, kind: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None) -> ir.Value:
        """Append a node of one output; return that."""
        return self.outputs_of(kind, inputs, attributes, count=1)[0]

    def outputs_of(
        self, kind: str, inputs: Sequence[ir.Value | None], attributes: Mapping[str, Any] | None = None, *, count: int
    ) -> list[ir.Value]:
        """Append a node of several outputs; return them."""
        node = ir.node(kind, inputs, dict(attributes or {}), num_outputs=count)
        node.name = f"{kind}_{len(self.nodes)}"
        for i, value in enumerate(node.outputs):
            value.name = node.name if count == 1 else f"{node.name}_{i}"
        self.nodes.append(node)
        return list(node.outputs)

    def constant(self, value: Any, dtype: ir.DataType) -> ir.Value:
        """Return the graph's constant of that value and type, making it the first time."""
        array = np.asarray(value).astype(dtype.numpy())
        key = (dtype.name, array.shape, array.tobytes())
        if key not in self.constants:
            tensor = ir.tensor(array, dtype=dtype, name=f"constant_{len(self.constants)}")
            self.constants[key] = ir.Value(
                name=tensor.name, type=ir.TensorType(dtype), shape=ir.Shape(array.shape), const_value=tensor
            )
        return self.constants[key]

    def ints(self, values: Sequence[int]) -> ir.Value:
        """Return a constant int64 vector."""
        return self.constant(list(values), ir.DataType.INT64)

    def length(self, value: ir.Value, axis: int) -> ir.Value:
        """Return the size of an axis (counted from the front) as an int64 vector of one."""
        return self.op("Shape", [value], {"start": axis, "end": axis + 1})

    def vector(self, sizes: Sequence[int | ir.Value]) -> ir.Value:
        """Join static sizes and sizes that are known only at run time to one int64 vector."""
        if all(isinstance(n, int) for n in sizes):
            return self.ints([n for n in sizes if isinstance(n, int)])
        parts: list[ir.Value] = []
        known: list[int] = []
        for n in sizes:
            if isinstance(n, int):
                known.append(n)
                continue
            if known:
                parts.append(self.ints(known))
                known = []
            parts.append(n)
        if known:
            parts.append(self.ints(known))
        return parts[0] if len(parts) == 1 else self.op("Concat", parts, {"axis": 0})
