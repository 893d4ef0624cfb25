"""A schedule: a solver's whole work, as numbers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .rows import Array, Indices

__all__ = ["Schedule"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What is done with the network's outputs, evaluation by evaluation; N evaluations, K state slots.

    The state starts as ``state_0 = start[0] * image latent + start[1] * initial noise`` and zeros in the other
    slots. For each evaluation ``i`` the network sees ``input_scale[i] * state_0`` and gets ``timesteps[i]``, then::

        x0 = clip(predict[i] @ [state_0, network output], -clip, clip)
        state = update[i] @ [state_0, ..., state_{K-1}, network output, x0, noise]

    and ``state_0`` is the result after the last one. All arrays are on the host, read-only, float64 unless noted.

    Attributes:
        solver: class name of the diffusers scheduler that does the same.
        timesteps: what the network gets as time, ``[N]``.
        input_scale: factor of the latent before the network, ``[N]``.
        predict: factors of the latent and of the network's output in the predicted x0, ``[N, 2]``; zeros for a
            solver that does not clip it.
        clip: the largest magnitude of x0; infinity where nothing is clipped.
        update: factors of the new state, ``[N, K, K + 3]``.
        needs_noise: bool ``[N]``, whether an evaluation takes fresh standard normal numbers from the sample's stream.
            True also where its factor is zero, since diffusers' generator advances all the same.
        start: factors of the image's latent and of the initial noise in the initial latent.
        blend: ``[N, 2]``: after evaluation ``i``, a known image at the noise level reached is ``blend[i, 0]`` times
            its latent plus ``blend[i, 1]`` times its noise (inpainting by blending). The last row is (1, 0).
        step_index: int64 ``[N]``, the step (from 0) that an evaluation belongs to.
        warnings: what the user should know about this schedule.

    """

    solver: str
    timesteps: Array
    input_scale: Array
    predict: Array
    clip: float
    update: Array
    needs_noise: NDArray[np.bool_]
    start: tuple[float, float]
    blend: Array
    step_index: Indices
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for array in (
            self.timesteps,
            self.input_scale,
            self.predict,
            self.update,
            self.needs_noise,
            self.blend,
            self.step_index,
        ):
            array.setflags(write=False)

    @property
    def evaluations(self) -> int:
        """Number of network evaluations N."""
        return len(self.timesteps)

    @property
    def steps(self) -> int:
        """Number of steps as a user counts them."""
        return int(self.step_index[-1]) + 1
