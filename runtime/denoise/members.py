"""The samples of a batch, and the slot and the rows that each of them has in the buffers."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from .sample import Sample

__all__ = ["Member", "Members"]


class Member:
    """A sample in a batch.

    Attributes:
        sample: the sample.
        slot: its index along the axis of samples.
        rows: the indices of its rows along the axis of rows.
        numbers: float32 [N, width], the numbers of each of its evaluations, see :func:`.numbers.packed`.
        places: int [width], the index of each of them in the buffer with the numbers of all samples.

    """

    places: NDArray[np.intp]

    def __init__(self, sample: Sample, slot: int, rows: tuple[int, ...], numbers: NDArray[np.float32]) -> None:
        self.sample = sample
        self.slot = slot
        self.rows = rows
        self.numbers = numbers

    @property
    def remaining(self) -> int:
        """How many evaluations it has left."""
        return self.sample.evaluations - self.sample.position


class Members:
    """The samples of a batch, always on its first slots and rows.

    Args:
        slots: the most samples.
        rows: the most rows.

    """

    def __init__(self, slots: int, rows: int) -> None:
        self.slots = slots
        self.rows = rows
        self._members: list[Member] = []

    def __iter__(self) -> Iterator[Member]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @property
    def used_rows(self) -> int:
        """How many rows are in use."""
        return sum(member.sample.rows for member in self._members)

    def check_room(self, sample: Sample) -> None:
        """Check that there are a free slot and enough free rows for a sample.

        Raises:
            UsageError: there are not.

        """
        if len(self) == self.slots:
            raise UsageError(f"all {self.slots} slots of this batch are taken")
        if self.used_rows + sample.rows > self.rows:
            raise UsageError(f"this batch has {self.rows} rows, of which {self.used_rows} are taken")

    def add(self, sample: Sample, numbers: NDArray[np.float32]) -> Member:
        """Give a sample the next slot and rows."""
        rows = tuple(range(self.used_rows, self.used_rows + sample.rows))
        self._members.append(Member(sample, len(self), rows, numbers))
        return self._members[-1]

    def of(self, sample: Sample) -> Member:
        """Return a sample's member.

        Raises:
            UsageError: it is not in this batch.

        """
        for member in self._members:
            if member.sample is sample:
                return member
        raise UsageError("this sample is not in this batch")

    def remove(
        self, leaving: Sequence[Member], move_slot: Callable[[int, int], None], move_row: Callable[[int, int], None]
    ) -> None:
        """Remove members, and move others from the end into the free slots and rows.

        Args:
            leaving: the members that leave.
            move_slot: called with the old and the new slot of each sample that moves.
            move_row: called with the old and the new index of each row that moves.

        """
        self._members = [member for member in self._members if member not in leaving]
        samples, rows = len(self), self.used_rows
        free_slots = iter(sorted(set(range(samples)) - {member.slot for member in self._members}))
        free_rows = iter(sorted(set(range(rows)) - {row for member in self._members for row in member.rows}))
        for member in self._members:
            if member.slot >= samples:
                slot = next(free_slots)
                move_slot(member.slot, slot)
                member.slot = slot
            moved = {row: next(free_rows) for row in member.rows if row >= rows}
            for row, free in moved.items():
                move_row(row, free)
            member.rows = tuple(moved.get(row, row) for row in member.rows)
        self._members.sort(key=lambda member: member.slot)

    def clear(self) -> None:
        """Remove all members."""
        self._members.clear()
