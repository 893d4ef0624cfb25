"""ControlNets: their inputs, and their scales at each evaluation."""

import numpy as np
from numpy.typing import NDArray

from ...engines.bundle.bundle import Bundle
from ...engines.memory import Buffer
from ...engines.nets.config import UNetConfig
from ..denoise.guidance import Guidance
from ..request.job import Job
from .condition import Part, Preparation
from .text import conditioner_of, run_conditioner

__all__ = ["ControlNets", "control_scale"]

F32 = NDArray[np.float32]


class ControlNets:
    """The bundle's ControlNets: each adds its residuals to those of the one before it; the sum goes to the denoiser.

    A ControlNet is three components: ``NAME`` runs at every evaluation; ``NAME_conditioner``, which makes the keys and
    values of the text, and ``NAME_hint``, which embeds the control image, run once for each image.
    """

    def components(self, job: Job, bundle: Bundle) -> tuple[str, ...]:
        """See :class:`.Condition`."""
        return tuple(bundle.manifest.controlnets[: len(job.control_images)])

    def prepare(self, preparation: Preparation) -> list[Part]:
        """See :class:`.Condition`."""
        job, bundle = preparation.job, preparation.components.bundle
        names = self.components(job, bundle)
        scales = []
        for i, name in enumerate(names):
            config = bundle.config(name)
            assert isinstance(config, UNetConfig)
            scales.append(control_scale(job, i, config, preparation.guidance, preparation.schedule.evaluations))
        inputs: list[dict[str, dict[str, Buffer]]] = [{} for _ in range(job.images)]
        for name, pixels in zip(names, job.control_images, strict=True):
            for images in preparation.chunks():
                conditioned = run_conditioner(preparation, conditioner_of(name), images)
                image = np.ascontiguousarray(pixels[[i // (job.images // len(pixels)) for i in images]])
                hints = preparation.run(f"{name}_hint", {"image": image}, images)
                for i, text, hint in zip(images, conditioned, hints, strict=True):
                    inputs[i][name] = {**text, **hint}
        numbers = {name: {"scale": scale} for name, scale in zip(names, scales, strict=True)}
        runs = {name: np.asarray(scale.any(axis=(1, 2))) for name, scale in zip(names, scales, strict=True)}
        return [Part(inputs=inputs_of_image, numbers=numbers, runs=runs) for inputs_of_image in inputs]


def control_scale(job: Job, net: int, config: UNetConfig, guidance: Guidance, evaluations: int) -> F32:
    """Return the scale of each residual of a ControlNet, float32 [N, rows, residuals]; zero where it does not run.

    Args:
        job: the job.
        net: index of the ControlNet.
        config: of that ControlNet.
        guidance: of each sample.
        evaluations: N.

    """
    residuals = len(config.maps())
    by_residual = np.full(residuals, job.control_scales[net])
    by_row = np.ones(guidance.rows)
    if job.request.guess_mode:
        # As in the paper's repository: deeper residuals weigh more, and rows of the negative prompt get none.
        by_residual *= np.logspace(-1, 0, residuals)
        by_row[: guidance.negative_rows] = 0
    start, end = job.control_windows[net]
    i = np.arange(evaluations)
    inside = ~((i / evaluations < start) | ((i + 1) / evaluations > end))
    scale = inside[:, None, None] * by_row[None, :, None] * by_residual[None, None, :]
    return np.asarray(scale, np.float32)
