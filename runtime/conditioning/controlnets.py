"""ControlNets: their inputs, and the strength of each at each evaluation."""

import numpy as np
from numpy.typing import NDArray

from ...engines.bundle.bundle import Bundle
from ...engines.memory import Buffer
from ...engines.nets.config import UNetConfig
from ..denoise.guidance import Guidance
from ..request.job import Job
from .condition import Part, Preparation
from .text import conditioned

__all__ = ["ControlNets", "control_scale"]

F32 = NDArray[np.float32]


class ControlNets:
    """The bundle's ControlNets: each adds to the feature maps of the one before it, the last one's go to the denoiser.

    A ControlNet has two components of its own beside it: ``NAME_conditioner`` and ``NAME_hint``, which embeds the
    control image; both run once a request.
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
                text = conditioned(preparation, f"{name}_conditioner", images)
                image = np.ascontiguousarray(pixels[[i // (job.images // len(pixels)) for i in images]])
                hints = preparation.run(f"{name}_hint", {"image": image}, images)
                for i, own, hint in zip(images, text, hints, strict=True):
                    inputs[i][name] = {**own, **hint}
        numbers = {name: {"scale": scale} for name, scale in zip(names, scales, strict=True)}
        runs = {name: np.asarray(scale.any(axis=(1, 2))) for name, scale in zip(names, scales, strict=True)}
        return [Part(inputs=own, numbers=numbers, runs=runs) for own in inputs]


def control_scale(job: Job, net: int, config: UNetConfig, guidance: Guidance, evaluations: int) -> F32:
    """Return the strength of each map of a ControlNet, [N, rows, maps]; zero where the network is not run.

    Args:
        job: the job.
        net: which of its ControlNets.
        config: of that network.
        guidance: of each sample.
        evaluations: N.

    """
    maps = len(config.maps())
    by_map = np.full(maps, job.control_scales[net])
    by_row = np.ones(guidance.rows)
    if job.request.guess_mode:
        # As in the paper's repository: deeper maps weigh more, and rows without prompt get none.
        by_map *= np.logspace(-1, 0, maps)
        by_row[: guidance.negative_rows] = 0
    start, end = job.control_windows[net]
    i = np.arange(evaluations)
    works = ~((i / evaluations < start) | ((i + 1) / evaluations > end))
    scale = works[:, None, None] * by_row[None, :, None] * by_map[None, None, :]
    return np.asarray(scale, np.float32)
