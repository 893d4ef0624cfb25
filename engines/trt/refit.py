"""Puts weights into an open plan: those that a stripped plan was built without, and changed ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.graph_file import Initialiser, read_graph
from ..engine import Array
from ..errors import EngineError, UsageError, nearest
from ..weights import changed_tensors
from .messages import Messages, logger_for

__all__ = ["PlanWeights"]

_TYPES = {1: "FLOAT", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF", 16: "BF16"}
"""ONNX's ``TensorProto.DataType`` -> the library's ``DataType``."""


class PlanWeights:
    """The weights of an open plan.

    Args:
        module: the library.
        engine: the deserialised plan.
        bundle: where graph and weights are.
        component: which one it runs.
        precision: of the graph that the plan was built from.
        changeable: whether the plan was built with ``refit``; else only its own weights can be put in.

    """

    def __init__(
        self, module: Any, engine: Any, bundle: Bundle, component: str, precision: str, *, changeable: bool
    ) -> None:
        self._module, self._engine, self._bundle = module, engine, bundle
        self._component, self._precision, self._changeable = component, precision, changeable

    def own(self, changes: Mapping[str, Array]) -> dict[str, Array]:
        """Return those of a network's changes that are of weights that this component uses."""
        if not changes:
            return {}
        names = read_graph(self._graph()).initialisers
        return dict(changed_tensors(changes, names))

    def _graph(self) -> Path:
        return self._bundle.checked_file(self._bundle.graph(self._component, self._precision).file)

    def refit(self, stream: int, changes: Mapping[str, Array] | None = None) -> None:
        """Put in the bundle's weights and, over them, the changed ones.

        Always from the bundle's weights and with the whole set of changes, so that what was put in before leaves no
        trace. Nothing may be running that was not enqueued on ``stream``; the caller holds the device, and afterwards
        captures launches again, even where this failed.

        Args:
            stream: CUDA stream to do it on.
            changes: weights by their names in the weights file, of the stored type and size.

        Raises:
            UsageError: the plan cannot be refitted, or a change does not fit.
            EngineError: the library refuses a weight, or requires one that the graph does not have.

        """
        changes = changes or {}
        if not self._engine.refittable or (changes and not self._changeable):
            raise UsageError(f"{self._component}: the plan's weights cannot be changed; build it with --refit")
        bundle, component = self._bundle, self._component
        initialisers = read_graph(self._graph()).initialisers
        _check(component, initialisers, changes)
        weights = bundle.checked_weights(bundle.component(component).network)
        stored = np.memmap(weights, np.uint8, mode="r")
        messages = Messages()
        refitter = self._module.Refitter(self._engine, logger_for(self._module, messages))
        arrays: list[Array] = []  # the refitter keeps addresses
        for name in refitter.get_all_weights():
            if name in initialisers:
                arrays.append(_bytes_of(initialisers[name], stored, changes.get(name)))
                if not refitter.set_named_weights(name, self._weights(initialisers[name], arrays[-1])):
                    raise self._refused(f"the weight {name}", messages)
        missing = refitter.get_missing_weights()
        if missing:
            raise self._refused(f"to go without {', '.join(missing[:3])} ({len(missing)} in all)", messages)
        if not refitter.refit_cuda_engine_async(stream):
            raise self._refused("the weights", messages)

    def _weights(self, initialiser: Initialiser, data: Array) -> Any:
        kind = getattr(self._module.DataType, _TYPES[initialiser.type])
        return self._module.Weights(kind, data.ctypes.data, initialiser.count)

    def _refused(self, what: str, messages: Messages) -> EngineError:
        reason = "; ".join(messages.errors) or "no reason given"
        return EngineError(f"{self._component}: the plan refuses {what}: {reason}; build it again")


def _check(component: str, initialisers: Mapping[str, Initialiser], changes: Mapping[str, Array]) -> None:
    for name, array in changes.items():
        known = initialisers.get(name)
        if known is None:
            raise UsageError(f"{component} has no weight {name!r}{nearest(name, initialisers)}")
        if array.nbytes != known.length or not array.flags.c_contiguous:
            raise UsageError(f"{component}: {name} takes {known.length} contiguous bytes, not {array.nbytes}")


def _bytes_of(initialiser: Initialiser, stored: Array, change: Array | None) -> Array:
    if change is not None:
        return change
    if initialiser.offset is None:
        return np.frombuffer(initialiser.data, np.uint8)
    return stored[initialiser.offset : initialiser.offset + initialiser.length]
