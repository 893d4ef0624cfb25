"""What a bundle's plans take on disk and need on the device."""

import math
from dataclasses import dataclass

import numpy as np

from ..bundle.bundle import Bundle
from ..spec import ComponentSpec
from .plan_record import PlanRecord, read_record
from .profiles import Profile

__all__ = ["MemoryEstimate", "PlanMemory", "memory_estimates"]


@dataclass(frozen=True, kw_only=True)
class PlanMemory:
    """What one plan needs, in bytes.

    Attributes:
        component: what it runs.
        record: its description.
        buffers: inputs and outputs at the largest shapes, for each profile.
        scratch_by_profile: as the open plan reports, or why it could not be opened: then the record's one number
            stands for all profiles.

    """

    component: str
    record: PlanRecord
    buffers: tuple[int, ...]
    scratch_by_profile: tuple[int, ...] | str

    @property
    def scratch(self) -> int | None:
        """At the largest shapes of all profiles; None where the library did not report it."""
        if isinstance(self.scratch_by_profile, str):
            return self.record.activation_bytes
        return max(self.scratch_by_profile)

    @property
    def unopened(self) -> str | None:
        """Why the plan could not be opened; None where it was."""
        return self.scratch_by_profile if isinstance(self.scratch_by_profile, str) else None

    @property
    def weights(self) -> int:
        """Of the plan; its whole size where the library did not report it."""
        return self.record.plan_bytes if self.record.weight_bytes is None else self.record.weight_bytes


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """What a device needs for all plans of one engine and target at once, in bytes.

    Attributes:
        engine: ``tensorrt`` or ``tensorrt-rtx``.
        version: of the library.
        target: what the plans run on.
        plans: one by one.
        weights: of all plans; of each plan its whole size where the library did not report it. Those that are streamed
            stay in host memory as far as the budget says.
        scratch: the largest of all plans, as engines that run one after another share it.
        buffers: the sum over the plans, each at its largest profile.
        unknown_scratch: components whose scratch memory the library did not report; it comes on top.

    """

    engine: str
    version: str
    target: str
    plans: tuple[PlanMemory, ...]
    weights: int
    scratch: int
    buffers: int
    unknown_scratch: tuple[str, ...]

    @property
    def total(self) -> int:
        """Weights, scratch and buffers. The CUDA context and captured graphs come on top."""
        return self.weights + self.scratch + self.buffers


def memory_estimates(bundle: Bundle) -> tuple[MemoryEstimate, ...]:
    """Estimate what the plans need, from the records of their builds and from those that can be opened here.

    Returns:
        One for each engine, version and target that the bundle holds plans of.

    Raises:
        BundleError: a plan or its description is missing or was changed.

    """
    places = dict.fromkeys((built.engine, built.version, built.target) for built in bundle.manifest.built)
    return tuple(_estimate(bundle, *place) for place in places)


def _estimate(bundle: Bundle, engine: str, version: str, target: str) -> MemoryEstimate:
    from .scratch import scratch_by_profile  # what opens plans is not imported by what only builds them

    plans = []
    for built in bundle.manifest.built:
        if (built.engine, built.version, built.target) == (engine, version, target):
            record = read_record(bundle, built.file)
            spec = bundle.graph(built.component, built.precision).spec
            buffers = tuple(_buffers(spec, profile) for profile in record.profiles)
            scratch = scratch_by_profile(bundle, built)
            plans.append(
                PlanMemory(component=built.component, record=record, buffers=buffers, scratch_by_profile=scratch)
            )
    return MemoryEstimate(
        engine=engine,
        version=version,
        target=target,
        plans=tuple(plans),
        weights=sum(plan.weights for plan in plans),
        scratch=max((p.scratch or 0 for p in plans), default=0),
        buffers=sum(max(p.buffers) for p in plans),
        unknown_scratch=tuple(p.component for p in plans if p.scratch is None),
    )


def _buffers(spec: ComponentSpec, profile: Profile) -> int:
    largest = {axis: length.max for axis, length in profile.items()}
    return sum(
        math.prod(tensor.resolve(largest)) * np.dtype(tensor.dtype).itemsize for tensor in (*spec.inputs, *spec.outputs)
    )
