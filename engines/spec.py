"""How the shapes of components are described.

A :class:`ComponentSpec` names the inputs and outputs of a component with symbolic axes. Trace inputs, dynamic
axes, engine profiles, buffer sizes and request validation are all derived from it.
"""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from .errors import UsageError

__all__ = ["AxisRange", "Changes", "ComponentSpec", "Dim", "TensorSpec", "resolve_dim", "split_dim"]

Dim = int | str
"""A dimension: a number, an axis (``"h"``), a multiple of one (``"8*h"``), or a fraction rounded up (``"h/2"``)."""

_DIM = re.compile(r"(?:(\d+)\*)?([A-Za-z_]\w*)(?:/(\d+))?")


def split_dim(dim: str) -> tuple[int, str, int]:
    """Split a dimension into factor, axis and divisor: ``"8*h"`` -> ``(8, "h", 1)``, ``"h/2"`` -> ``(1, "h", 2)``."""
    match = _DIM.fullmatch(dim)
    if match is None:
        raise ValueError(f"not an axis: {dim!r}")
    return int(match[1] or 1), match[2], int(match[3] or 1)


def resolve_dim(dim: Dim, axes: Mapping[str, int]) -> int:
    """Return a dimension as a number, computed from the size of its axis."""
    if isinstance(dim, int):
        return dim
    factor, axis, divisor = split_dim(dim)
    return -(-factor * axes[axis] // divisor)


class AxisRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sizes an axis may have, inclusive; ``opt`` is what an engine is optimised for."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ValueError(f"an axis needs 1 <= min <= opt <= max, not {self.min}, {self.opt}, {self.max}")


Changes = Literal["state", "evaluation", "request"]
Owner = Literal["sample", "row", "batch"]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input or output.

    Attributes:
        name: the tensor's name.
        dtype: the type of its elements, by numpy's name, such as ``float32`` or ``uint8``.
        shape: its dimensions.
        changes: when an input changes. ``state``: each evaluation writes it for the next. ``evaluation``: it has new
            values at each evaluation. ``request``: it stays the same while a sample is denoised.

    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    changes: Changes = "request"

    @property
    def owner(self) -> Owner:
        """What the first axis counts: samples (S), rows (R), or neither, so that the tensor belongs to the batch."""
        first = self.shape[0] if self.shape else None
        return "sample" if first == "S" else "row" if first == "R" else "batch"

    @property
    def is_number(self) -> bool:
        """Whether its size does not depend on the size of the image: a few numbers for each sample or row."""
        return all(isinstance(dim, int) or dim in ("S", "R") for dim in self.shape)

    def resolve(self, axes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape as numbers, computed from the size of every axis."""
        return tuple(resolve_dim(dim, axes) for dim in self.shape)


class ComponentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs, outputs and axis ranges of one component."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    axes: dict[str, AxisRange]

    def input(self, name: str) -> TensorSpec:
        """Return the input of that name."""
        for tensor in self.inputs:
            if tensor.name == name:
                return tensor
        raise KeyError(name)

    def axes_of(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """Return the sizes of the axes, from the shapes of the inputs.

        Raises:
            UsageError: an input is missing or superfluous, a shape does not fit, two inputs disagree about an
                axis, or an axis is outside its range.

        """
        names = {tensor.name for tensor in self.inputs}
        if names != set(shapes):
            missing, extra = sorted(names - set(shapes)), sorted(set(shapes) - names)
            raise UsageError(f"{self.name}: missing inputs {missing}, unknown inputs {extra}")
        axes: dict[str, int] = {}
        for tensor in self.inputs:
            shape = shapes[tensor.name]
            if len(shape) != len(tensor.shape):
                raise UsageError(f"{self.name}: {tensor.name} has shape {list(shape)}, needs {list(tensor.shape)}")
            for dim, size in zip(tensor.shape, shape, strict=True):
                self._read(axes, tensor, dim, size)
        for tensor in self.inputs:
            if tuple(shapes[tensor.name]) != tensor.resolve(axes):
                raise UsageError(
                    f"{self.name}: {tensor.name} has shape {list(shapes[tensor.name])}, needs {list(tensor.shape)}"
                )
        for axis, size in axes.items():
            allowed = self.axes[axis]
            if not allowed.min <= size <= allowed.max:
                raise UsageError(
                    f"{self.name}: axis {axis} is {size}, this bundle holds {allowed.min} to {allowed.max}"
                )
        return axes

    def _read(self, axes: dict[str, int], tensor: TensorSpec, dim: Dim, size: int) -> None:
        if isinstance(dim, int):
            if dim != size:
                raise UsageError(f"{self.name}: {tensor.name} has a dimension of {size} where {dim} is needed")
            return
        factor, axis, divisor = split_dim(dim)
        if divisor > 1:
            return  # follows from the axis, which other inputs have; checked with the whole shape later
        if size % factor:
            raise UsageError(f"{self.name}: {tensor.name} has a dimension of {size}, no multiple of {factor}")
        if axes.setdefault(axis, size // factor) != size // factor:
            raise UsageError(
                f"{self.name}: {tensor.name} takes axis {axis} as {size // factor}, another input as {axes[axis]}"
            )
