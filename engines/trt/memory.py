"""What a bundle's plans take on disk and need on the device."""

import math
from dataclasses import dataclass

import numpy as np

from ..bundle import Bundle
from ..spec import ComponentSpec
from .profiles import Profile
from .record import PlanRecord, read_record

__all__ = ["MemoryEstimate", "PlanMemory", "memory_estimate"]

_ITEM_SIZES = {"bfloat16": 2}
"""Types that numpy does not know by name."""


@dataclass(frozen=True, kw_only=True)
class PlanMemory:
    """What one plan needs, in bytes.

    Attributes:
        component: what it runs.
        record: its description.
        buffers: inputs and outputs at the largest shapes, for each profile.

    """

    component: str
    record: PlanRecord
    buffers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """What a device needs for all plans of one engine at once, in bytes.

    Attributes:
        plans: one by one.
        weights: of all plans; of each plan its whole size where the library did not tell.
        scratch: the largest of all plans, as engines that run one after another share it.
        buffers: the sum over the plans, each at its largest profile.
        untold: components whose scratch memory the library did not tell; it comes on top.

    """

    plans: tuple[PlanMemory, ...]
    weights: int
    scratch: int
    buffers: int
    untold: tuple[str, ...]

    @property
    def total(self) -> int:
        """Weights, scratch and buffers. The CUDA context and captured graphs come on top."""
        return self.weights + self.scratch + self.buffers


def memory_estimate(bundle: Bundle, engine: str, target: str | None = None) -> MemoryEstimate:
    """Estimate what the plans of an engine need, from what was written down when they were built.

    Args:
        bundle: with plans; empty sums where it has none for that engine.
        engine: ``tensorrt`` or ``tensorrt-rtx``.
        target: of the plans; None takes those of every target, as a bundle mostly has one.

    Raises:
        BundleError: a plan's description is missing or was changed.

    """
    plans = []
    for built in bundle.manifest.built:
        if built.engine == engine and target in (None, built.target):
            record = read_record(bundle, built.file)
            spec = bundle.graph(built.component, built.precision).spec
            buffers = tuple(_buffers(spec, profile) for profile in record.profiles)
            plans.append(PlanMemory(component=built.component, record=record, buffers=buffers))
    return MemoryEstimate(
        plans=tuple(plans),
        weights=sum(p.record.plan_bytes if p.record.weight_bytes is None else p.record.weight_bytes for p in plans),
        scratch=max((p.record.activation_bytes or 0 for p in plans), default=0),
        buffers=sum(max(p.buffers) for p in plans),
        untold=tuple(p.component for p in plans if p.record.activation_bytes is None),
    )


def _buffers(spec: ComponentSpec, profile: Profile) -> int:
    longest = {axis: length.max for axis, length in profile.items()}
    return sum(
        math.prod(tensor.resolve(longest)) * (_ITEM_SIZES.get(tensor.dtype) or np.dtype(tensor.dtype).itemsize)
        for tensor in (*spec.inputs, *spec.outputs)
    )
