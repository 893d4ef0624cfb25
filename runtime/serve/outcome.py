"""What a worker says about a request that is done."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..generate import stage_settings
from ..request.resolve import settings_of
from .model import Model
from .ticket import Outcome, Ticket

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..denoise import Sample

__all__ = ["outcome_of"]


def outcome_of(ticket: Ticket, model: Model, done: "Sequence[tuple[Sample, Image]]") -> Outcome:
    """Put together a request's outcome.

    Args:
        ticket: the request.
        model: the bundle that drew it.
        done: its samples and their images, in the order of their seeds.

    """
    samples, images = zip(*done, strict=True)
    first, components = samples[0], model.pipeline.components
    warnings = [*components.notes, *(warning for sample in samples for warning in sample.warnings)]
    scale = {} if first.job is None else {"guidance_scale": first.job.guidance_scale}
    return Outcome(
        images=images,
        seeds=tuple(sample.seed for sample in samples),
        height=images[0].height,
        width=images[0].width,
        timings_ms=replace(ticket.times),
        warnings=tuple(dict.fromkeys(warnings)),
        engines=dict(components.ran),
        fallbacks=tuple(components.fallbacks),
        settings={
            **settings_of(ticket.plan.request),
            "scheduler": first.schedule.solver,
            "num_inference_steps": first.schedule.steps,
            **scale,
            **({} if first.job is None else stage_settings(first.job, samples)),
            **({"loras": ticket.loras} if ticket.loras else {}),
        },
        loras=tuple(ticket.loras),
    )
