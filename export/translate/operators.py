"""ATen operator -> ONNX nodes, one function each; opset 23.

A function gets the builder, the traced node (whose ``meta["val"]`` has shape and type) and the node's arguments with
traced values replaced by ONNX values. Sizes known only at run time are int64 vectors of one.
"""

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import fx

from .builder import DTYPES, Builder

__all__ = ["OPERATORS"]

Translate = Callable[..., Any]
OPERATORS: dict[Any, Translate] = {}
aten = torch.ops.aten


def translates(*targets: Any) -> Callable[[Translate], Translate]:
    """Register a function for some operators."""

    def register(function: Translate) -> Translate:
        for target in targets:
            OPERATORS[target] = function
        return function

    return register


def _tensor(node: fx.Node) -> torch.Tensor:
    value = node.meta["val"]
    assert isinstance(value, torch.Tensor)
    return value


def _input(node: fx.Node, index: int = 0) -> torch.Tensor:
    argument = node.args[index]
    assert isinstance(argument, fx.Node)
    return _tensor(argument)


def _operand(b: Builder, node: fx.Node, value: Any) -> ir.Value:
    """A tensor as it is; a number as a constant of the other operand's type."""
    if isinstance(value, ir.Value):
        return value
    reference = next(a for a in node.args if isinstance(a, fx.Node))
    return b.constant(value, DTYPES[_tensor(reference).dtype])


def _binary(kind: str) -> Translate:
    def translate(b: Builder, node: fx.Node, x: Any, y: Any, alpha: float = 1) -> ir.Value:
        assert alpha == 1
        return b.op(kind, [_operand(b, node, x), _operand(b, node, y)])

    return translate


def _unary(kind: str) -> Translate:
    def translate(b: Builder, node: fx.Node, x: ir.Value) -> ir.Value:
        return b.op(kind, [x])

    return translate


for _kind, _targets in {
    "Add": [aten.add.Tensor],
    "Sub": [aten.sub.Tensor],
    "Mul": [aten.mul.Tensor],
    "Max": [aten.maximum.default],
    "Min": [aten.minimum.default],
    "Div": [aten.div.Tensor],
    "Equal": [aten.eq.Scalar, aten.eq.Tensor],
    "GreaterOrEqual": [aten.ge.Scalar],
    "LessOrEqual": [aten.le.Tensor],
    "And": [aten.__and__.Tensor, aten.bitwise_and.Tensor, aten.logical_and.default],
}.items():
    translates(*_targets)(_binary(_kind))

for _kind, _target in {
    "Abs": aten.abs.default,
    "Cos": aten.cos.default,
    "Exp": aten.exp.default,
    "Neg": aten.neg.default,
    "Round": aten.round.default,
    "Sigmoid": aten.sigmoid.default,
    "Sin": aten.sin.default,
    "Sqrt": aten.sqrt.default,
}.items():
    translates(_target)(_unary(_kind))


@translates(aten.rsub.Scalar)
def rsub(b: Builder, node: fx.Node, x: ir.Value, y: float) -> ir.Value:
    return b.op("Sub", [_operand(b, node, y), x])


@translates(aten.silu.default)
def silu(b: Builder, node: fx.Node, x: ir.Value) -> ir.Value:
    return b.op("Mul", [x, b.op("Sigmoid", [x])])


@translates(aten.gelu.default)
def gelu(b: Builder, node: fx.Node, x: ir.Value, approximate: str = "none") -> ir.Value:
    return b.op("Gelu", [x], {"approximate": approximate})


@translates(aten.clamp.default)
def clamp(b: Builder, node: fx.Node, x: ir.Value, min: float | None = None, max: float | None = None) -> ir.Value:  # noqa: A002
    bounds = [None if bound is None else _operand(b, node, bound) for bound in (min, max)]
    return b.op("Clip", [x, *bounds])


@translates(aten.ne.Scalar)
def not_equal(b: Builder, node: fx.Node, x: ir.Value, y: float) -> ir.Value:
    return b.op("Not", [b.op("Equal", [x, _operand(b, node, y)])])


@translates(aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where_scalar(b: Builder, node: fx.Node, condition: ir.Value, x: float, y: float) -> ir.Value:
    dtype = DTYPES[_tensor(node).dtype]
    parts = [v if isinstance(v, ir.Value) else b.constant(v, dtype) for v in (x, y)]
    return b.op("Where", [condition, *parts])


@translates(aten.where.self)
def where(b: Builder, node: fx.Node, condition: ir.Value, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.op("Where", [condition, x, y])


@translates(aten.zeros_like.default)
def zeros_like(b: Builder, node: fx.Node, x: ir.Value, **options: Any) -> ir.Value:
    """A scalar: wherever our networks use it, it is broadcast."""
    return b.constant(0, DTYPES[_tensor(node).dtype])


@translates(aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default)
def cast(b: Builder, node: fx.Node, x: ir.Value, *args: Any, **options: Any) -> ir.Value:
    dtype = _tensor(node).dtype
    return x if _input(node).dtype == dtype else b.op("Cast", [x], {"to": DTYPES[dtype]})


@translates(aten.arange.start_step, aten.arange.default, aten.arange.start)
def arange(b: Builder, node: fx.Node, *args: float, **options: Any) -> ir.Value:
    return b.constant(np.arange(*args), DTYPES[_tensor(node).dtype])


@translates(aten.linear.default)
def linear(b: Builder, node: fx.Node, x: ir.Value, weight: ir.Value, bias: ir.Value | None = None) -> ir.Value:
    if _input(node).ndim == 2:
        return b.op("Gemm", [x, weight] + ([] if bias is None else [bias]), {"transB": 1})
    y = b.op("MatMul", [x, b.op("Transpose", [weight], {"perm": [1, 0]})])
    return y if bias is None else b.op("Add", [y, bias])


@translates(aten.conv2d.default, aten.conv2d.padding)
def conv2d(
    b: Builder,
    node: fx.Node,
    x: ir.Value,
    weight: ir.Value,
    bias: ir.Value | None = None,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> ir.Value:
    kernel = list(_input(node, 1).shape[2:])
    stride, padding, dilation = (list(v) * (2 // len(v)) for v in (stride, padding, dilation))
    attributes = {
        "kernel_shape": kernel,
        "strides": stride,
        "pads": padding + padding,
        "dilations": dilation,
        "group": groups,
    }
    return b.op("Conv", [x, weight] + ([] if bias is None else [bias]), attributes)


@translates(aten.group_norm.default)
def group_norm(
    b: Builder, node: fx.Node, x: ir.Value, groups: int, weight: ir.Value, bias: ir.Value, eps: float, *args: Any
) -> ir.Value:
    return b.op("GroupNormalization", [x, weight, bias], {"num_groups": groups, "epsilon": eps})


@translates(aten.layer_norm.default)
def layer_norm(
    b: Builder, node: fx.Node, x: ir.Value, shape: Sequence[int], weight: ir.Value, bias: ir.Value, eps: float, *a: Any
) -> ir.Value:
    assert len(shape) == 1
    return b.op("LayerNormalization", [x, weight, bias], {"axis": -1, "epsilon": eps})


@translates(aten.scaled_dot_product_attention.default)
def attention(
    b: Builder,
    node: fx.Node,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    mask: ir.Value | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
) -> ir.Value:
    scale = 1 / math.sqrt(int(_input(node).shape[-1]))
    inputs = [q, k, v] if mask is None else [q, k, v, mask]
    return b.op("Attention", inputs, {"is_causal": int(is_causal), "scale": scale})


@translates(aten.upsample_nearest2d.vec)
def upsample(
    b: Builder, node: fx.Node, x: ir.Value, size: Sequence[int | ir.Value] | None, scale: Sequence[float] | None
) -> ir.Value:
    attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    # TensorRT resizes everything but bfloat16. The way through float32 is exact: nearest neighbours are copied.
    narrow = _input(node).dtype == torch.bfloat16
    wide = b.op("Cast", [x], {"to": ir.DataType.FLOAT}) if narrow else x
    if size is None:
        assert scale is not None
        resized = b.op("Resize", [wide, None, b.constant([1, 1, *scale], ir.DataType.FLOAT)], attributes)
    else:
        batch = b.op("Shape", [x], {"start": 0, "end": 2})
        shape = b.op("Concat", [batch, b.vector(size)], {"axis": 0})
        resized = b.op("Resize", [wide, None, None, shape], attributes)
    return b.op("Cast", [resized], {"to": ir.DataType.BFLOAT16}) if narrow else resized


@translates(aten.avg_pool2d.default)
def average_pool(b: Builder, node: fx.Node, x: ir.Value, kernel: Sequence[int], stride: Sequence[int] = ()) -> ir.Value:
    """Without padding, so that every mean is of the whole kernel; ``stride`` is the kernel's size by default."""
    return b.op("AveragePool", [x], {"kernel_shape": list(kernel), "strides": list(stride or kernel)})


@translates(aten.pad.default)
def pad(
    b: Builder, node: fx.Node, x: ir.Value, pads: Sequence[int], mode: str = "constant", value: float | None = None
) -> ir.Value:
    assert mode == "constant" and not value
    rank = _input(node).ndim
    before, after = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):  # torch counts from the last axis
        before[rank - 1 - i], after[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    return b.op("Pad", [x, b.ints(before + after)])


@translates(aten.embedding.default)
def embedding(b: Builder, node: fx.Node, weight: ir.Value, ids: ir.Value, *args: Any) -> ir.Value:
    return b.op("Gather", [weight, ids], {"axis": 0})


@translates(aten.index_select.default)
def index_select(b: Builder, node: fx.Node, x: ir.Value, axis: int, index: ir.Value) -> ir.Value:
    return b.op("Gather", [x, index], {"axis": axis})


@translates(aten.select.int)
def select(b: Builder, node: fx.Node, x: ir.Value, axis: int, index: int) -> ir.Value:
    return b.op("Gather", [x, b.constant(index, ir.DataType.INT64)], {"axis": axis})


@translates(aten.gather.default)
def gather(b: Builder, node: fx.Node, x: ir.Value, axis: int, index: ir.Value) -> ir.Value:
    return b.op("GatherElements", [x, index], {"axis": axis})


@translates(aten.argmax.default)
def argmax(b: Builder, node: fx.Node, x: ir.Value, axis: int, keepdim: bool = False) -> ir.Value:
    return b.op("ArgMax", [x], {"axis": axis, "keepdims": int(keepdim)})


@translates(aten.sum.dim_IntList)
def sum_(b: Builder, node: fx.Node, x: ir.Value, axes: Sequence[int], keepdim: bool = False) -> ir.Value:
    return b.op("ReduceSum", [x, b.ints(axes)], {"keepdims": int(keepdim)})


@translates(aten.mean.dim)
def mean(b: Builder, node: fx.Node, x: ir.Value, axes: Sequence[int], keepdim: bool = False) -> ir.Value:
    return b.op("ReduceMean", [x, b.ints(axes)], {"keepdims": int(keepdim)})


@translates(aten.cat.default)
def cat(b: Builder, node: fx.Node, tensors: Sequence[ir.Value], axis: int = 0) -> ir.Value:
    return tensors[0] if len(tensors) == 1 else b.op("Concat", tensors, {"axis": axis})


@translates(aten.stack.default)
def stack(b: Builder, node: fx.Node, tensors: Sequence[ir.Value], axis: int = 0) -> ir.Value:
    parts = [b.op("Unsqueeze", [t, b.ints([axis])]) for t in tensors]
    return parts[0] if len(parts) == 1 else b.op("Concat", parts, {"axis": axis})


@translates(aten.unbind.int)
def unbind(b: Builder, node: fx.Node, x: ir.Value, axis: int = 0) -> list[ir.Value]:
    count = int(_input(node).shape[axis])
    return [b.op("Gather", [x, b.constant(i, ir.DataType.INT64)], {"axis": axis}) for i in range(count)]


@translates(aten.chunk.default)
def chunk(b: Builder, node: fx.Node, x: ir.Value, count: int, axis: int = 0) -> list[ir.Value]:
    return b.outputs_of("Split", [x], {"axis": axis, "num_outputs": count}, count=count)


@translates(aten.slice.Tensor)
def slice_(
    b: Builder, node: fx.Node, x: ir.Value, axis: int = 0, start: int | None = 0, end: int | None = None, step: int = 1
) -> ir.Value:
    end = torch.iinfo(torch.int64).max if end is None else end
    if not start and step == 1 and end == torch.iinfo(torch.int64).max:
        return x  # the whole axis: how indexing with `:` is traced
    return b.op("Slice", [x, b.ints([start or 0]), b.ints([end]), b.ints([axis]), b.ints([step])])


@translates(aten.flip.default)
def flip(b: Builder, node: fx.Node, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    ends = [torch.iinfo(torch.int64).min] * len(axes)
    ones = [-1] * len(axes)
    return b.op("Slice", [x, b.ints(ones), b.ints(ends), b.ints(axes), b.ints(ones)])


@translates(aten.unsqueeze.default)
def unsqueeze(b: Builder, node: fx.Node, x: ir.Value, axis: int) -> ir.Value:
    """Runs of them become one node: indexing with several ``None`` is traced as a run."""
    axes = [axis % _tensor(node).ndim]
    producer = x.producer()
    if producer is not None and producer.op_type == "Unsqueeze" and producer is b.nodes[-1]:
        before = producer.inputs[1]
        assert before is not None and before.const_value is not None and producer.inputs[0] is not None
        earlier = before.const_value.numpy().tolist()
        if all(a < axes[0] for a in earlier):
            b.nodes.pop()
            x, axes = producer.inputs[0], earlier + axes
            producer.replace_input_with(0, None)
            producer.replace_input_with(1, None)
    return b.op("Unsqueeze", [x, b.ints(axes)])


@translates(aten.transpose.int)
def transpose(b: Builder, node: fx.Node, x: ir.Value, first: int, second: int) -> ir.Value:
    perm = list(range(_input(node).ndim))
    perm[first], perm[second] = perm[second], perm[first]
    return b.op("Transpose", [x], {"perm": perm})


@translates(aten.permute.default)
def permute(b: Builder, node: fx.Node, x: ir.Value, perm: Sequence[int]) -> ir.Value:
    return b.op("Transpose", [x], {"perm": list(perm)})


@translates(aten.flatten.using_ints)
def flatten(b: Builder, node: fx.Node, x: ir.Value, start: int = 0, end: int = -1) -> ir.Value:
    shape = _input(node).shape
    start, end = start % len(shape), end % len(shape)
    return b.op("Reshape", [x, b.vector([*[0] * start, -1, *_sizes(b, x, shape, end + 1)])])


@translates(aten.unflatten.int)
def unflatten(b: Builder, node: fx.Node, x: ir.Value, axis: int, sizes: Sequence[int | ir.Value]) -> ir.Value:
    shape = _input(node).shape
    axis %= len(shape)
    return b.op("Reshape", [x, b.vector([*[0] * axis, *sizes, *_sizes(b, x, shape, axis + 1)])])


def _sizes(b: Builder, x: ir.Value, shape: torch.Size, first: int) -> list[int | ir.Value]:
    """Return the sizes of a tensor's axes from ``first`` on; Reshape copies only those before."""
    return [b.length(x, i) if isinstance(n, torch.SymInt) else int(n) for i, n in enumerate(shape) if i >= first]


@translates(aten.expand.default)
def expand(b: Builder, node: fx.Node, x: ir.Value, sizes: Sequence[int | ir.Value]) -> ir.Value:
    target = [1 if isinstance(n, int) and n == -1 else n for n in sizes]
    return b.op("Expand", [x, b.vector(target)])


@translates(aten.sym_size.int)
def sym_size(b: Builder, node: fx.Node, x: ir.Value, axis: int) -> ir.Value:
    return b.length(x, axis)


@translates(operator.getitem)
def getitem(b: Builder, node: fx.Node, values: Sequence[ir.Value], index: int) -> ir.Value:
    return values[index]


def _length_operation(kind: str) -> Translate:
    def translate(b: Builder, node: fx.Node, x: int | ir.Value, y: int | ir.Value) -> ir.Value:
        return b.op(kind, [b.ints([v]) if isinstance(v, int) else v for v in (x, y)])

    return translate


# Sizes are never negative, so ONNX's division, which truncates, is the floor division that torch means.
translates(operator.add)(_length_operation("Add"))
translates(operator.sub)(_length_operation("Sub"))
translates(operator.mul)(_length_operation("Mul"))
translates(operator.floordiv)(_length_operation("Div"))


@translates(aten.full.default)
def full(b: Builder, node: fx.Node, sizes: Sequence[int], value: float, **options: Any) -> ir.Value:
    return b.constant(np.full(sizes, value), DTYPES[_tensor(node).dtype])


@translates(
    aten._assert_tensor_metadata.default,
    aten._assert_scalar.default,
    operator.eq,
    operator.ge,
    operator.le,
    operator.ne,
)
def nothing(b: Builder, node: fx.Node, *args: Any, **options: Any) -> None:
    """Assertions of the tracer."""


@translates(aten.detach_.default, aten.lift_fresh_copy.default, aten.alias.default, aten.contiguous.default)
def same(b: Builder, node: fx.Node, x: ir.Value, *args: Any, **options: Any) -> ir.Value:
    return x
