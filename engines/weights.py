"""The weights of a network: the bundle's file, and tensors that replace some of those in it."""

import contextlib
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError, nearest

__all__ = ["ComputedOverlay", "Overlay", "WeightSet", "changed_tensors"]

Overlay = Mapping[str, NDArray[np.generic]]
"""Tensors by their names in the weights file, of the stored shape and type; bfloat16 as its bits, uint16."""

_STORED = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "uint16"}


class ComputedOverlay(Overlay):
    """Changes that are computed whenever they are asked for: nothing holds a second network's worth of memory.

    Args:
        recipe: what they are computed from. It stands for their contents, whose hash would take longer to compute than
            the changes themselves.
        names: of the tensors.
        compute: from a name to the tensor.

    """

    def __init__(self, recipe: str, names: Collection[str], compute: Callable[[str], NDArray[np.generic]]) -> None:
        self.recipe = recipe
        self._names = frozenset(names)
        self._compute = compute

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        if name not in self._names:
            raise KeyError(name)
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def changed_tensors(changes: Overlay, names: Collection[str]) -> Iterator[tuple[str, NDArray[np.generic]]]:
    """Yield those of the changes that have one of these names; a few are computed ahead, on other threads.

    Meanwhile matrix products of numpy run on one thread each, in the whole process.
    """
    several = min(4, os.cpu_count() or 1)
    wanted = [name for name in changes if name in names]
    with _products_on_one_thread(), ThreadPoolExecutor(several) as pool:
        ahead = deque((name, pool.submit(changes.__getitem__, name)) for name in wanted[:several])
        for following in (*wanted[several:], *[None] * len(ahead)):
            name, future = ahead.popleft()
            if following is not None:
                ahead.append((following, pool.submit(changes.__getitem__, following)))
            yield name, future.result()


_products = threading.Lock()
_users = 0
_limits: Any = None


@contextlib.contextmanager
def _products_on_one_thread() -> Iterator[None]:
    """Let numpy compute each matrix product on one thread while anyone is in the block.

    OpenBLAS serves one at a time with its own threads, and those that wait for it spin. Products are rounded otherwise
    on several threads: components that are opened at the same time must not switch them on for each other.
    """
    global _users, _limits
    from threadpoolctl import threadpool_limits

    with _products:
        if not _users:
            _limits = threadpool_limits(limits=1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _products:
            _users -= 1
            if not _users:
                _limits.restore_original_limits()


@dataclass(frozen=True, kw_only=True)
class WeightSet:
    """A network's weights.

    Attributes:
        file: the ``.safetensors`` that was exported; it never changes.
        base: what identifies its contents.
        changes: what is used in place of the tensors of those names.

    """

    file: Path
    base: str
    changes: Overlay = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """Identifies these weights: part of every cache key of something that is made from them."""
        if not self.changes:
            return self.base
        digest = hashlib.sha256(self.base.encode())
        if isinstance(self.changes, ComputedOverlay):
            digest.update(self.changes.recipe.encode())
            return digest.hexdigest()
        for name, array in sorted(self.changes.items()):
            digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def with_changes(self, changes: Overlay) -> "WeightSet":
        """Return the same file with other changes: always over what was exported, never over earlier changes.

        Raises:
            UsageError: there is no tensor of a name, or it has another shape or type.

        """
        from safetensors import safe_open

        if isinstance(changes, ComputedOverlay):  # made for these weights
            return WeightSet(file=self.file, base=self.base, changes=changes)
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
                        f"{name} is {dtype} {shape}, and cannot be replaced by {array.dtype} {list(array.shape)}"
                    )
                checked[name] = np.ascontiguousarray(array)
        return WeightSet(file=self.file, base=self.base, changes=checked)
