"""Kandinsky's ``hint``: an image, such as a depth map, that the UNet takes as further channels beside the latent."""

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
        per_hint = job.images // len(job.hint)
        return [
            Part(inputs={DENOISER: outputs})
            for images in preparation.chunks()
            for outputs in preparation.run(
                "hint", {"image": np.ascontiguousarray(job.hint[[i // per_hint for i in images]])}, images
            )
        ]
