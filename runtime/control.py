"""What the ControlNets of a request are given: hints, and how strongly each works at each evaluation."""

import numpy as np
from numpy.typing import NDArray

from ..engines.nets.config import UNetConfig
from .guidance import Guidance
from .resolve import Job

__all__ = ["control_scale", "hints_of"]

F32 = NDArray[np.float32]


def hints_of(pixels: F32, samples: range, images: int) -> F32:
    """Return the control image of each sample.

    Args:
        pixels: float32 [N, H, W, 3]; N is 1, the number of prompts, or of images.
        samples: which of the request's images.
        images: how many there are.

    """
    return np.ascontiguousarray(pixels[[i // (images // len(pixels)) for i in samples]])


def control_scale(job: Job, net: int, config: UNetConfig, guidance: Guidance, evaluations: int) -> F32:
    """Return the strength of each map of a ControlNet, [N, R, maps]; zero where the network is not run.

    Args:
        job: the job.
        net: which of its ControlNets.
        config: of that network.
        guidance: the rows.
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
    kept = ~((i / evaluations < start) | ((i + 1) / evaluations > end))
    scale = kept[:, None, None] * by_row[None, :, None] * by_map[None, None, :]
    return np.asarray(scale, np.float32)
