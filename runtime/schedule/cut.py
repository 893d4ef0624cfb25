"""Which of a solver's evaluations are run: ``strength``, ``denoising_start`` and ``denoising_end`` choose them."""

from dataclasses import dataclass

import numpy as np

from ...engines.errors import UsageError
from .combinations import Indices
from .solver import Grid, ScheduleRequest, Solver

__all__ = ["Cut", "evaluations"]


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The part of the schedule that is run, in the terms of diffusers' pipelines.

    Attributes:
        strength: share of the steps to take from an image with noise added, in [0, 1]; None starts from pure noise.
        denoising_start: share of the noise schedule that another model has run already; the latent comes from it.
        denoising_end: share of the noise schedule after which to stop and hand the latent on.

    """

    strength: float | None = None
    denoising_start: float | None = None
    denoising_end: float | None = None

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise UsageError(f"strength must lie between 0 and 1, not {self.strength}")
        start, end = self.denoising_start, self.denoising_end
        if start is not None and not 0 < start < 1:
            raise UsageError(f"denoising_start must lie between 0 and 1, both excluded, not {start}")
        if end is not None and not 0 < end <= 1:
            raise UsageError(f"denoising_end must be above 0 and at most 1, not {end}")
        if start is not None and end is not None and start >= end:
            raise UsageError(f"denoising_start ({start}) must be below denoising_end ({end})")


def evaluations(solver: Solver, request: ScheduleRequest, grid: Grid, cut: Cut) -> Indices:
    """Return the indices of the evaluations that are run, ``[N]``, consecutive.

    Raises:
        UsageError: none is left.

    """
    begin, end = _begin(solver, request, grid, cut), len(grid.timesteps)
    if cut.denoising_end is not None and cut.denoising_end < 1:
        within = grid.timesteps[begin:] >= _cutoff(request, cut.denoising_end)
        end = begin + int(within.sum())
    if begin >= end:
        settings = ", ".join(f"{name}={value}" for name, value in vars(cut).items() if value is not None)
        raise UsageError(f"{settings} leaves no step of {request.step_count}: raise the steps or widen the cut")
    return np.arange(begin, end)


def _begin(solver: Solver, request: ScheduleRequest, grid: Grid, cut: Cut) -> int:
    total = len(grid.timesteps)
    if cut.denoising_start is not None:
        remaining = int((grid.timesteps < _cutoff(request, cut.denoising_start)).sum())
        if solver.order == 2 and remaining % 2 == 0:
            remaining += 1  # not between the two evaluations of a step
        return total - remaining
    if cut.strength is None:
        return 0
    # With custom timesteps each evaluation counts as a step, as in diffusers' pipelines.
    steps = total if request.steps is None else request.steps
    return (steps - min(int(steps * cut.strength), steps)) * solver.order


def _cutoff(request: ScheduleRequest, share: float) -> int:
    training_steps = request.options.num_train_timesteps
    return round(training_steps - share * training_steps)
