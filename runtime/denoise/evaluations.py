"""The evaluations that a batch runs next: their numbers, which are copied to the networks' memory ahead, and noise."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...engines.memory import HOST, Buffer, Memory
from .members import Member, Members

__all__ = ["WINDOW", "Evaluation", "NoiseTable", "NumberTable", "sample_noise", "upcoming"]

F32 = NDArray[np.float32]

WINDOW = 64
"""Evaluations whose numbers are copied to the device at once; a captured loop that is longer copies all of its own."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation needs beside its numbers.

    Attributes:
        noisy: the members whose solvers take noise.
        run_preceding: whether the components before the denoiser (ControlNets) run.

    """

    noisy: tuple[Member, ...]
    run_preceding: bool


def upcoming(members: Members, count: int) -> list[Evaluation]:
    """Return the next ``count`` evaluations; each member has at least that many left."""
    needs_noise, preceding = [], np.zeros(count, bool)
    for member in members:
        sample, first = member.sample, member.sample.position
        needs_noise.append(sample.schedule.needs_noise[first : first + count].tolist())
        for runs in sample.runs.values():
            preceding |= runs[first : first + count]
    return [
        Evaluation(tuple(m for m, noisy in zip(members, by_member, strict=True) if noisy), run_preceding)
        for by_member, run_preceding in zip(zip(*needs_noise, strict=True), preceding.tolist(), strict=True)
    ]


class NumberTable:
    """The numbers of the next evaluations of all members, float32 [evaluations, size].

    Args:
        memory: the networks' memory.
        size: how many numbers an evaluation of a full batch has.

    """

    def __init__(self, memory: Memory, size: int) -> None:
        self._memory = memory
        self._size = size
        self._allocate(WINDOW)

    def _allocate(self, length: int) -> None:
        on_host = np.zeros((length, self._size), np.float32)
        self._table: Buffer = on_host if self._memory is HOST else self._memory.zeros(on_host.shape, np.float32)
        self._on_host = on_host

    def at(self, i: int) -> Buffer:
        """Return the numbers of the i-th evaluation from now, in the networks' memory."""
        row: Buffer = self._table[i]
        return row

    def make_room(self, evaluations: int) -> bool:
        """Make room for that many evaluations; return whether the table has been allocated again for that."""
        if evaluations <= len(self._on_host):
            return False
        self._allocate(_whole_windows(evaluations))
        return True

    def fill(self, members: Iterable[Member], count: int) -> None:
        """Copy the numbers of the members' next ``count`` evaluations to the networks' memory."""
        table = self._on_host[:count]
        table[:] = 0
        for member in members:
            first = member.sample.position
            table[:, member.places] = member.numbers[first : first + count]
        if self._table is not self._on_host:
            self._memory.copy(self._table[:count], table)


class NoiseTable:
    """The noise of all evaluations that take noise, for loops that are captured as one graph.

    Args:
        memory: the networks' memory.
        shape: of one evaluation's noise, [slots, C, h, w].

    """

    def __init__(self, memory: Memory, shape: tuple[int, ...]) -> None:
        self._memory = memory
        self._shape = shape
        self._table: Buffer | None = None

    def at(self, i: int) -> Buffer:
        """Return the noise of the i-th evaluation that takes noise, in the networks' memory."""
        assert self._table is not None
        row: Buffer = self._table[i]
        return row

    def make_room(self, evaluations: int) -> bool:
        """Make room for that many evaluations; return whether the table has been allocated again for that."""
        if not evaluations or (self._table is not None and self._table.shape[0] >= evaluations):
            return False
        self._table = self._memory.zeros((_whole_windows(evaluations), *self._shape), np.float32)
        return True

    def fill(self, noisy: Sequence[tuple[Member, ...]]) -> None:
        """Sample noise; ``noisy`` has the members that take it, for each evaluation that takes noise."""
        for i, members in enumerate(noisy):
            noise = np.zeros(self._shape, np.float32)
            sample_noise(members, noise)
            self._memory.copy(self.at(i), noise)

    def release(self) -> None:
        """Release the memory."""
        self._table = None


def sample_noise(members: Iterable[Member], into: F32) -> None:
    """Write the next noise of each member to its slot in ``into``, float32 [slots, C, h, w]."""
    for member in members:
        into[member.slot] = member.sample.noise.normal(into.shape[1:])


def _whole_windows(evaluations: int) -> int:
    """Round up to a multiple of :data:`WINDOW`."""
    return -(-evaluations // WINDOW) * WINDOW
