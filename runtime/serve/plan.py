"""What a request comes to, decided as it is accepted: everything that a policy must know before it is prepared."""

import secrets
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...engines.errors import UsageError
from ..request.job_schedule import schedule_for
from ..request.request import Request
from ..request.resolve import resolve
from .policy import Bucket

if TYPE_CHECKING:
    from ..pipeline import Pipeline

__all__ = ["Plan", "plan_for"]

_SEEDS = 2**32


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request that has been checked.

    Attributes:
        request: what to draw; its seed is known.
        bucket: where it runs, as far as can be said before it is prepared.
        images: how many.
        rows: of each image; see :class:`~.policy.Item`.
        evaluations: of each image.
        alike: see :class:`~.policy.Item`.

    """

    request: Request
    bucket: Bucket
    images: int
    rows: int
    evaluations: int
    alike: Hashable


def plan_for(name: str, pipeline: "Pipeline", settings: Mapping[str, Any]) -> Plan:
    """Check a request against a bundle.

    Args:
        name: under which the bundle is served.
        pipeline: the bundle's.
        settings: as for :meth:`~sdengine.runtime.pipeline.Pipeline.prepare`.

    Raises:
        UsageError: it cannot be met as given.

    """
    request = Request.from_settings(**settings)
    callbacks = (request.callback_on_step_end, request.prior_callback_on_step_end)
    if any(callback is not None for callback in callbacks) or request.output_type != "pil":
        raise UsageError("a worker gives PIL images, and events in place of callback_on_step_end")
    if request.loras is not None or request.cross_attention_kwargs is not None:
        raise UsageError("loras: a worker draws with those that its bundle was opened with")
    if request.generator is not None:
        raise UsageError("generator: a worker takes seeds")
    if request.seed is None:
        request = replace(request, seed=secrets.randbelow(_SEEDS))
    bundle = pipeline.bundle
    job = resolve(request, bundle)
    schedule = schedule_for(job, bundle.scheduler(), strength=job.strength)
    more = [f"{len(job.hints)} ControlNets"] if job.hints else []
    bucket = Bucket(model=name, height=job.height, width=job.width, more=tuple(more))
    return Plan(
        request=request,
        bucket=bucket,
        images=job.images,
        rows=2 if job.guided else 1,
        evaluations=schedule.evaluations,
        alike=(schedule.solver, schedule.evaluations, job.guidance_scale, job.task, job.strength),
    )
