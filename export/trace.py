"""Traces a component under fake tensors: shapes and types only, the weights never travel through the tracer."""

from collections.abc import Mapping
from typing import NamedTuple

import onnx_ir as ir
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram

from ..engines.errors import ExportError
from ..engines.nets.component_module import component_module, network_from_config
from ..engines.nets.network_config import NetworkConfig
from ..engines.spec import ComponentSpec, split_dim
from .translate import graph_from_program

__all__ = ["Traced", "trace_component", "trace_program"]

# Sizes to trace with: distinct, and used by no network, so that one that becomes a constant is noticed.
_SIZES = {"S": 2, "R": 3, "B": 5, "T": 11, "E": 7, "h": 42, "w": 58}

# Below this a coarse level of a UNet could be one latent wide, which torch would treat as a case of its own. The
# translated operators are the same there, so the graph is right for smaller sizes too.
_LEAST = {"h": 33, "w": 33}


class Traced(NamedTuple):
    """A component as torch traced it, and as it was translated.

    Attributes:
        program: what torch traced.
        model: the graph; its weights are external.
        names: the ONNX value of each traced node that makes one tensor.

    """

    program: ExportedProgram
    model: ir.Model
    names: dict[fx.Node, str]


def trace_component(
    kind: str,
    config: NetworkConfig,
    spec: ComponentSpec,
    weights: Mapping[str, ir.TensorProtocol],
    *,
    dtype: torch.dtype,
) -> ir.Model:
    """Trace a component and translate it to ONNX.

    Args:
        kind: which component of the network; see :func:`~sdengine.engines.nets.component_module.component_module`.
        config: the network's configuration.
        spec: inputs, outputs and axes; all axes become dynamic.
        weights: the network's parameters by name.
        dtype: what the network computes in.

    Returns:
        A model whose weights are external.

    Raises:
        ExportError: an axis was specialised, an operator is not known or a weight is missing.

    """
    return trace_program(kind, config, spec, weights, dtype=dtype).model


def trace_program(
    kind: str,
    config: NetworkConfig,
    spec: ComponentSpec,
    weights: Mapping[str, ir.TensorProtocol],
    *,
    dtype: torch.dtype,
) -> Traced:
    """Trace and translate as :func:`trace_component`; return what was traced beside the model."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        module = component_module(kind, network_from_config(config, dtype), spec)
        inputs = tuple(
            torch.zeros(tensor.resolve(_SIZES), dtype=getattr(torch, tensor.dtype)) for tensor in spec.inputs
        )
        try:
            program = torch.export.export(module, inputs, dynamic_shapes=(_dynamic_shapes(spec),), strict=False)
        except Exception as error:  # torch raises many kinds; what matters is which component, and torch's own words
            raise ExportError(f"{spec.name}: torch.export failed: {error}") from error
        named = {f"network.{name}": tensor for name, tensor in weights.items()}
        return Traced(program, *graph_from_program(program, spec, named))


def _dynamic_shapes(spec: ComponentSpec) -> tuple[dict[int, object], ...]:
    dims = {axis: Dim(axis, min=_LEAST.get(axis, 1)) for axis in spec.axes}

    def dynamic(dim: str) -> object:
        factor, axis, divisor = split_dim(dim)
        if divisor > 1:
            return Dim.AUTO  # a rounded-up fraction; torch finds the relation by itself
        return dims[axis] if factor == 1 else factor * dims[axis]

    return tuple(
        {i: dynamic(dim) for i, dim in enumerate(tensor.shape) if isinstance(dim, str)} for tensor in spec.inputs
    )
