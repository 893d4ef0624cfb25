"""A schedule: the solver as a table of numbers, for a number of steps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .combinations import Array, Indices

__all__ = ["Schedule"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The factors of every operation of a solver, for N evaluations of the network.

    The state has K entries. It starts as ``state_0 = start[0] * image latent + start[1] * initial noise`` and zeros in
    the others. At each evaluation ``i`` the network is called with ``input_scale[i] * state_0`` and ``timesteps[i]``,
    then::

        x0 = clip(predict[i] @ [state_0, network output], -clip, clip)
        state = update[i] @ [state_0, ..., state_{K-1}, network output, x0, noise]

    and ``state_0`` after the last evaluation is the result. All arrays are on the host, read-only, float64 unless
    another type is named.

    Attributes:
        solver: class name of the diffusers scheduler that computes the same.
        timesteps: the network's timesteps, ``[N]``.
        input_scale: factor of the latent before the network, ``[N]``.
        predict: factors of the latent and of the network's output in the predicted x0, ``[N, 2]``; zeros for a
            solver that does not clip it.
        clip: the largest magnitude of x0; infinity if nothing is clipped.
        update: factors of the new state, ``[N, K, K + 3]``.
        needs_noise: bool ``[N]``, whether an evaluation takes fresh standard normal numbers from the sample's stream.
            It is true even where the noise's factor is zero, if diffusers' generator advances there.
        start: factors of the image's latent and of the initial noise in the initial latent.
        blend: ``[N, 2]``, for inpainting by blending: ``blend[i, 0]`` times the original image's latent plus
            ``blend[i, 1]`` times noise is that image at the noise level after evaluation ``i``. The last row is (1, 0).
        step_index: int64 ``[N]``, the step, counted from 0, that an evaluation belongs to.
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
        """Number of steps; some solvers have two evaluations per step."""
        return int(self.step_index[-1]) + 1
