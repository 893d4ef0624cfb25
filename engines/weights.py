"""The weights of a network: the bundle's file, and tensors in the place of some of those in it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError, nearest

__all__ = ["Overlay", "WeightSet"]

Overlay = Mapping[str, NDArray[np.generic]]
"""Tensors by their names in the weights file, of the stored shape and type; bfloat16 as its bits, uint16."""

_STORED = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "uint16"}


@dataclass(frozen=True, kw_only=True)
class WeightSet:
    """A network's weights.

    Attributes:
        file: the ``.safetensors`` that was exported; nobody changes it.
        base: what identifies its contents.
        changes: what is used in place of the tensors of those names.

    """

    file: Path
    base: str
    changes: Overlay = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """What tells these weights from all others: part of every key under which something made of them is held."""
        if not self.changes:
            return self.base
        found = hashlib.sha256(self.base.encode())
        for name, array in sorted(self.changes.items()):
            found.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def with_changes(self, changes: Overlay) -> "WeightSet":
        """Return the same file with other changes: always over what was exported, never over earlier changes.

        Raises:
            UsageError: there is no tensor of a name, or it has another shape or type.

        """
        from safetensors import safe_open

        checked = {}
        with safe_open(self.file, framework="np") as stored:
            names = set(stored.keys())
            for name, array in changes.items():
                if name not in names:
                    raise UsageError(f"these weights have no tensor {name!r}{nearest(name, names)}")
                tensor = stored.get_slice(name)
                shape, dtype = list(tensor.get_shape()), _STORED.get(tensor.get_dtype(), tensor.get_dtype())
                if list(array.shape) != shape or array.dtype != dtype:
                    raise UsageError(
                        f"{name} is {dtype} {shape}, and was to be changed to {array.dtype} {list(array.shape)}"
                    )
                checked[name] = np.ascontiguousarray(array)
        return WeightSet(file=self.file, base=self.base, changes=checked)
