"""Inpainting: the mask, and the image that is put back outside it after each step or is an inpainting UNet's input."""

from collections.abc import Mapping

import numpy as np

from ...engines.bundle.bundle import Bundle
from ...engines.engine import Array
from ...engines.memory import Buffer
from ..denoise.sample import DENOISER
from ..request.job import Job
from .condition import Part, Preparation

__all__ = ["Inpainting"]


class Inpainting:
    """The inputs ``mask`` and ``known``, or ``extra``, see :class:`~..latents.start.Start`.

    A UNet whose denoiser has ``mask`` gets a mask of ones for other tasks, so that everything is generated.
    """

    def components(self, job: Job, bundle: Bundle) -> tuple[str, ...]:
        """See :class:`.Condition`."""
        return ()

    def prepare(self, preparation: Preparation) -> list[Part]:
        """See :class:`.Condition`."""
        start, job = preparation.start, preparation.job
        names = {tensor.name for tensor in preparation.components.spec(DENOISER).inputs}
        if "mask" not in names:
            return [Part(inputs={DENOISER: _image(start.inputs, i)}) for i in range(job.images)]
        blend = np.asarray(preparation.schedule.blend, np.float32)
        latent = start.latent.shape[1:]
        no_mask = {"mask": np.ones((1, 1, *latent[1:]), np.float32), "known": np.zeros((1, 2, *latent), np.float32)}
        return [
            Part(
                inputs={DENOISER: no_mask if start.mask is None else _image(start.inputs, i)},
                numbers={DENOISER: {"blend": blend}},
            )
            for i in range(job.images)
        ]


def _image(inputs: Mapping[str, Array], i: int) -> dict[str, Buffer]:
    """Return image i's part ``[1, ...]`` of inputs for all images."""
    return {name: array[i : i + 1] for name, array in inputs.items()}
