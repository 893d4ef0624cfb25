"""What a request comes to, decided as it is accepted: everything that a policy must know before it is prepared."""

import hashlib
import secrets
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from PIL import Image

from ...engines.errors import UsageError
from ..latents.seeds import seeds_for
from ..lora_set import LoraSources
from ..request.job import Job
from ..request.job_schedule import schedule_for
from ..request.request import Request
from ..request.resolve import resolve
from .policy import Bucket, Work

if TYPE_CHECKING:
    from ..pipeline import Pipeline

__all__ = ["Plan", "name_of_loras", "plan_for"]

_SEEDS = 2**32
_IMAGES = ("image", "mask_image", "control_image", "hint")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request that has been checked.

    Attributes:
        request: what to generate; its seed is known.
        stages: what each image takes, one after the other, as far as can be said before it is prepared; the last one is
            the image's own.
        loras: what it is generated with.
        images: how many.
        image_bytes: what the images that it starts from take in memory.
        alike: see :class:`~.policy.Item`.

    """

    request: Request
    stages: tuple[Work, ...]
    loras: LoraSources
    images: int
    image_bytes: int
    alike: Hashable

    @property
    def bucket(self) -> Bucket:
        """Where the images themselves are denoised."""
        return self.stages[-1].bucket


def name_of_loras(loras: LoraSources) -> str:
    """Return what tells LoRAs, with their strengths, from others; empty where there are none."""
    return hashlib.sha256(repr(loras.key).encode()).hexdigest()[:12] if loras.sources else ""


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
    if request.generator is not None:
        raise UsageError("generator: a worker takes seeds")
    seed = secrets.randbelow(_SEEDS) if request.seed is None else request.seed
    request = replace(request, seed=seed)
    bundle = pipeline.bundle
    untagged, loras = pipeline.loras_of(request)
    job = resolve(untagged, bundle)
    seeds_for(seed, job.images)  # refused now, not when its turn comes
    schedule = schedule_for(job, bundle.scheduler(), strength=job.strength)
    more = [f"{len(job.control_images)} ControlNets"] if job.control_images else []
    bucket = Bucket(model=name, height=job.height, width=job.width, more=tuple(more), loras=name_of_loras(loras))
    own = Work(bucket=bucket, rows=2 if job.guided else 1, evaluations=schedule.evaluations)
    return Plan(
        request=request,
        stages=(*_earlier_stages(job, bucket), own),
        loras=loras,
        images=job.images,
        image_bytes=sum(_bytes_of(getattr(request, name)) for name in _IMAGES),
        alike=(schedule.solver, schedule.evaluations, job.guidance_scale, job.task, job.strength),
    )


def _bytes_of(value: Any) -> int:
    """Return the bytes of an image, an array or a list of such."""
    if isinstance(value, Image.Image):
        wide = value.mode.startswith(("I", "F"))
        return value.width * value.height * (4 if wide else len(value.getbands()))
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes_of, value))
    return int(getattr(value, "nbytes", 0))


def _earlier_stages(job: Job, image: Bucket) -> list[Work]:
    """Return what is denoised before an image: the embedding of its text, and that of a negative one."""
    if job.request.image_embeds is not None:
        return []
    earlier: list[Work] = []
    for stage in job.stages:
        bucket = replace(image, height=1, width=1, more=(), stage=stage.stage.network)
        rows = [2 if stage.guidance_scale > 1 else 1]
        if job.guided and job.prompts.negative_prompt is not None:
            rows.append(1)
        earlier += [Work(bucket=bucket, rows=count, evaluations=stage.steps) for count in rows]
    return earlier
