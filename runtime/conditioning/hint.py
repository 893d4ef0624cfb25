"""A hint, which the network takes as more channels beside the latents."""

import numpy as np

from ...engines.bundle.bundle import Bundle
from ..denoise.sample import DENOISER
from ..request.job import Job
from .condition import Part, Preparation

__all__ = ["Hint"]


class Hint:
    """The hint of each image, embedded once."""

    def components(self, job: Job, bundle: Bundle) -> tuple[str, ...]:
        """See :class:`.Condition`."""
        return ()

    def prepare(self, preparation: Preparation) -> list[Part]:
        """See :class:`.Condition`."""
        job = preparation.job
        if job.hint is None:
            return [Part() for _ in range(job.images)]
        each = job.images // len(job.hint)
        return [
            Part(inputs={DENOISER: own})
            for images in preparation.chunks()
            for own in preparation.run(
                "hint", {"image": np.ascontiguousarray(job.hint[[i // each for i in images]])}, images
            )
        ]
