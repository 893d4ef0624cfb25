"""A bundle as a worker serves it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..lora_set import LoraSources
from ..request.request import Request
from .plan import Plan, plan_for

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..denoise import Sample
    from ..pipeline import Pipeline

__all__ = ["Model"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A bundle and the name under which it is served.

    Attributes:
        name: what requests call it.
        pipeline: its open pipeline.
        slots: images that share a launch at most.
        created: when its bundle was written, in seconds since 1970.

    """

    name: str
    pipeline: "Pipeline"
    slots: int
    created: int = 0

    @classmethod
    def of(cls, name: str, pipeline: "Pipeline", most: int | None) -> "Model":
        """Serve a pipeline with as many slots as its bundle takes, or as ``most`` says."""
        axis = pipeline.components.spec("denoiser").axes["S"].max
        slots = axis if most is None else min(axis, most)
        created = int(pipeline.bundle.path.stat().st_mtime)
        return cls(name=name, pipeline=pipeline, slots=slots, created=created)

    @property
    def usual_loras(self) -> LoraSources:
        """What requests that name no LoRAs are generated with."""
        return self.pipeline.loras_of(Request(""))[1]

    def plan(self, settings: Mapping[str, Any]) -> Plan:
        """Check a request; see :func:`.plan_for`."""
        return plan_for(self.name, self.pipeline, settings)

    def prepare(self, plan: Plan) -> "list[Sample]":
        """Make the samples of a plan."""
        request = plan.request
        values = {name: getattr(request, name) for name in request.__dataclass_fields__}
        return self.pipeline.prepare(**{name: value for name, value in values.items() if value is not None})

    def decode(self, sample: "Sample") -> "Image":
        """Decode one sample."""
        return self.pipeline.decode([sample])[0]
