"""The evaluations that a batch runs next: their numbers, copied to the networks' memory ahead, and their noise."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...engines.memory import HOST, Buffer, Memory
from .members import Member, Members

__all__ = ["WINDOW", "Evaluation", "NoiseTable", "NumberTable", "sample_noise", "upcoming"]

F32 = NDArray[np.float32]

WINDOW = 64
"""Evaluations whose numbers are copied to the device together; more for a captured loop that is longer."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation does beside the denoiser.

    Attributes:
        noisy: the members that need noise.
        before: whether the components before the denoiser run.

    """

    noisy: tuple[Member, ...]
    before: bool


def upcoming(members: Members, count: int) -> list[Evaluation]:
    """Return the next ``count`` evaluations; each member has as many left."""
    noise_of, before = [], np.zeros(count, bool)
    for member in members:
        sample, first = member.sample, member.sample.position
        noise_of.append(sample.schedule.needs_noise[first : first + count].tolist())
        for runs in sample.runs.values():
            before |= runs[first : first + count]
    return [
        Evaluation(tuple(m for m, needed in zip(members, needs, strict=True) if needed), runs)
        for needs, runs in zip(zip(*noise_of, strict=True), before.tolist(), strict=True)
    ]


class NumberTable:
    """The numbers of the next evaluations of all members, a row for each.

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
        """Return the numbers of the i-th of the next evaluations, in the networks' memory."""
        row: Buffer = self._table[i]
        return row

    def make_room(self, evaluations: int) -> bool:
        """Make it as long as that many evaluations need; return whether it has moved for that."""
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
    """The noise of all evaluations that need some, for a loop that is captured whole.

    Args:
        memory: the networks' memory.
        shape: of one evaluation's noise, [slots, C, h, w].

    """

    def __init__(self, memory: Memory, shape: tuple[int, ...]) -> None:
        self._memory = memory
        self._shape = shape
        self._table: Buffer | None = None

    def at(self, i: int) -> Buffer:
        """Return the noise of the i-th evaluation that needs some, in the networks' memory."""
        assert self._table is not None
        row: Buffer = self._table[i]
        return row

    def make_room(self, evaluations: int) -> bool:
        """Make it as long as that many evaluations need; return whether it has moved for that."""
        if not evaluations or (self._table is not None and self._table.shape[0] >= evaluations):
            return False
        self._table = self._memory.zeros((_whole_windows(evaluations), *self._shape), np.float32)
        return True

    def fill(self, noisy: Sequence[tuple[Member, ...]]) -> None:
        """Sample noise, for these members at the first evaluation, for those at the second, and so on."""
        for i, members in enumerate(noisy):
            noise = np.zeros(self._shape, np.float32)
            sample_noise(members, noise)
            self._memory.copy(self.at(i), noise)

    def release(self) -> None:
        """Release the memory."""
        self._table = None


def sample_noise(members: Iterable[Member], into: F32) -> None:
    """Put the next noise of each member at its slot of ``into``, float32 [slots, C, h, w]."""
    for member in members:
        into[member.slot] = member.sample.noise.normal(into.shape[1:])


def _whole_windows(evaluations: int) -> int:
    return -(-evaluations // WINDOW) * WINDOW
