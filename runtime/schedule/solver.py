"""What a solver consists of; each one is a record of three functions, see :mod:`.solver_registry`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .levels import TrainingLevels, training_levels
from .rows import Array, Indices
from .solver_options import OptionTable, SolverOptions

__all__ = ["Grid", "ScheduleRequest", "Solver", "Steps"]


@dataclass(frozen=True, kw_only=True)
class ScheduleRequest:
    """The input of a solver: its resolved options and the caller's numbers.

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
    """Where the network is evaluated if nothing is cut off.

    Attributes:
        timesteps: what the network gets as time, ``[M]``.
        sigmas: noise-to-signal ratio at each evaluation and after the last, ``[M + 1]``; empty for solvers that
            look the level up at a timestep.
        initial_noise: factor of the initial noise when there is no image to start from.
        warnings: what the user should know about these timesteps.

    """

    timesteps: Array
    sigmas: Array = field(default_factory=lambda: np.empty(0))
    initial_noise: float = 1.0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What the chosen evaluations do.

    Attributes:
        new_state: combinations by state slot (see :mod:`.rows`), each ``[COLUMNS, N]``.
        input_scale: ``[N]``.
        needs_noise: ``[N]``, whether an evaluation takes fresh noise.
        step_index: ``[N]``, the step of each evaluation; None where every ``order`` evaluations are one.
        unclipped_x0: combination of latent and output that predicts x0, ``[COLUMNS, N]``, of a solver whose
            ``new_state`` uses :data:`.rows.CLIPPED`.

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
        grid: where it evaluates the network.
        steps: its combinations, for the evaluations ``i`` (absolute indices into the grid, consecutive).
        level: signal and noise factors of a latent at the evaluations ``i``, ``([n], [n])``.
        order: evaluations per step, where a step takes more than one.
        takes: which of ``timesteps``, ``sigmas`` and ``eta`` it accepts.

    """

    name: str
    short_names: Mapping[str, Mapping[str, object]]
    options: OptionTable
    grid: Callable[[ScheduleRequest], Grid]
    steps: Callable[[ScheduleRequest, Grid, Indices], Steps]
    level: Callable[[ScheduleRequest, Grid, Indices], tuple[Array, Array]]
    order: int = 1
    takes: frozenset[str] = frozenset()
