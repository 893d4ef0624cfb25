"""What a worker says about a request that is done."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..generate import settings_for_record
from .model import Model
from .preview import NO_PREVIEWS
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
    components = model.pipeline.components
    warnings = [*components.notes, *(warning for sample in samples for warning in sample.warnings)]
    if ticket.previews and model.pipeline.bundle.manifest.preview is None:
        warnings.append(NO_PREVIEWS)
    return Outcome(
        images=images,
        seeds=tuple(sample.seed for sample in samples),
        height=images[0].height,
        width=images[0].width,
        timings_ms=replace(ticket.times, total=(time.monotonic() - ticket.accepted) * 1e3),
        warnings=tuple(dict.fromkeys(warnings)),
        engines=dict(components.ran),
        fallbacks=tuple(components.fallbacks),
        settings={
            **settings_for_record(ticket.plan.request, samples),
            **({"loras": ticket.loras} if ticket.loras else {}),
        },
        loras=tuple(ticket.loras),
        nsfw=tuple(sample.nsfw for sample in samples),
    )
