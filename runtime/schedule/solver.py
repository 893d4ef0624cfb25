"""A solver: a record with three functions, of which :mod:`.make` computes a schedule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .combinations import Array, Indices
from .levels import TrainingLevels, training_levels
from .solver_options import OptionTable, SolverOptions

__all__ = ["Grid", "ScheduleRequest", "Solver", "Steps"]


@dataclass(frozen=True, kw_only=True)
class ScheduleRequest:
    """The input of a solver's functions: its options, and the caller's steps, timesteps or sigmas.

    Exactly one of ``steps``, ``timesteps`` and ``sigmas`` is set; ``eta`` is 0 for solvers without it.
    """

    solver: str
    options: SolverOptions
    steps: int | None
    timesteps: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    eta: float = 0.0

    @cached_property
    def levels(self) -> TrainingLevels:
        """The noise levels of training."""
        return training_levels(self.options)

    @property
    def step_count(self) -> int:
        """Number of steps, from ``steps`` or ``timesteps``."""
        if self.timesteps is not None:
            return len(self.timesteps)
        return self.steps or 0


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All M evaluations of a solver, from pure noise to the image.

    ``strength``, ``denoising_start`` and ``denoising_end`` choose N consecutive ones of them, see :mod:`.cut`.

    Attributes:
        timesteps: the network's timesteps, ``[M]``.
        sigmas: noise-to-signal ratio at each evaluation and after the last, ``[M + 1]``; empty for solvers that
            find the noise level by the timestep.
        initial_noise: factor of the initial noise for starting without an image.
        warnings: what the user should know about these timesteps.

    """

    timesteps: Array
    sigmas: Array = field(default_factory=lambda: np.empty(0))
    initial_noise: float = 1.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a solver does at the chosen N evaluations.

    Attributes:
        new_state: by index in the state, the linear combination that it becomes, ``[COLUMNS, N]``; see
            :mod:`.combinations`.
        input_scale: factor of the latent before the network, ``[N]``.
        needs_noise: bool ``[N]``, whether an evaluation takes fresh noise.
        step_index: ``[N]``, the step of each evaluation; None if every ``order`` evaluations are a step.
        unclipped_x0: the linear combination of latent and network output that predicts x0, ``[COLUMNS, N]``, if
            ``new_state`` uses :data:`.combinations.CLIPPED`.

    """

    new_state: Mapping[int, Array]
    input_scale: Array
    needs_noise: NDArray[np.bool_]
    step_index: Indices | None = None
    unclipped_x0: Array | None = None


@dataclass(frozen=True, kw_only=True)
class Solver:
    """One solver, as data.

    Attributes:
        name: class name in diffusers.
        short_names: its common names, each with the options that the name implies.
        options: the options that it has.
        grid: returns all its evaluations.
        steps: returns what it does at the evaluations ``i``, consecutive indices into the grid.
        level: returns the signal and noise factors of a latent at the evaluations ``i``, ``([n], [n])``.
        order: evaluations per step.
        takes: those of ``timesteps``, ``sigmas`` and ``eta`` that it accepts.

    """

    name: str
    short_names: Mapping[str, Mapping[str, object]]
    options: OptionTable
    grid: Callable[[ScheduleRequest], Grid]
    steps: Callable[[ScheduleRequest, Grid, Indices], Steps]
    level: Callable[[ScheduleRequest, Grid, Indices], tuple[Array, Array]]
    order: int = 1
    takes: frozenset[str] = frozenset()
