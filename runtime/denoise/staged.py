"""A batch whose samples may have to wait for others: those of a prior run beside it, and share their launches too."""

from collections.abc import Callable, Sequence
from typing import Any

from ...engines.engine import Engine
from ...engines.errors import UsageError
from .batch import Batch, serialised
from .sample import Sample, checked_samples

__all__ = ["StagedBatch"]


class StagedBatch(Batch):
    """As :class:`.Batch`, for samples that begin with what others come to.

    A sample that is put in holds a slot from then on. As long as it waits, its :attr:`~.sample.Sample.before` are
    denoised in a batch of their own, with those of the other samples here; then it begins.

    Args:
        engines: see :class:`.Batch`, as for all others.
        sample: see there.
        earlier: makes a batch for samples like the one that it is given.
        options: see there.

    """

    def __init__(
        self, engines: Sequence[Engine], sample: Sample, *, earlier: Callable[[Sample], Batch], **options: Any
    ) -> None:
        super().__init__(engines, sample, **options)
        self._make_earlier = earlier
        self._earlier: Batch | None = None
        self._waiting: list[Sample] = []

    @property
    def active(self) -> tuple[Sample, ...]:
        """The samples in it: those that run, in the order of their slots, then those that wait."""
        return (*super().active, *self._waiting)

    def fits(self, sample: Sample) -> bool:
        """Whether the sample can be put in now."""
        return len(self.active) < self.slots and sample not in self._waiting and super().fits(sample)

    @serialised
    def put(self, sample: Sample) -> None:
        """Put a sample in; see :meth:`.Batch.put`. It need not be ready."""
        checked_samples([sample])
        if sample in self._waiting:
            raise UsageError("this sample is in a batch already")
        self._check(sample)
        if len(self.active) == self.slots:
            raise UsageError(f"all {self.slots} slots of this batch are taken")
        if all(one.finished for one in sample.before):
            super().put(sample)
        else:
            self._waiting.append(sample)

    @serialised
    def take(self, sample: Sample) -> None:
        """Take a sample out, with what it waits for; see :meth:`.Batch.take`."""
        if sample not in self._waiting:
            super().take(sample)
            return
        self._waiting.remove(sample)
        if self._earlier is not None:
            for one in self._earlier.active:
                if one in sample.before:
                    self._earlier.take(one)

    @serialised
    def step(self) -> list[Sample]:
        """Take every active sample one evaluation further, or what it waits for; see :meth:`.Batch.step`.

        Where some wait and others do not, that is a launch for each of them.
        """
        self.check_open()
        for sample in [one for one in self._waiting if all(before.finished for before in one.before)]:
            self._waiting.remove(sample)
            super().put(sample)
        if self._waiting:
            self._step_earlier()
        elif self._earlier is not None and not self._earlier.active:
            self._earlier.close()  # the next ones may be long in coming
            self._earlier = None
        return super().step() if self._members or not self._waiting else []

    def _step_earlier(self) -> None:
        queue = [one for sample in self._waiting for one in sample.before if not one.finished]
        if self._earlier is None:
            self._earlier = self._make_earlier(queue[0])
        held = self._earlier.active
        for one in queue:
            if one not in held and self._earlier.fits(one):
                self._earlier.put(one)
        self._earlier.step()

    @serialised
    def finish(self) -> list[Sample]:
        """Take every active sample to its end; see :meth:`.Batch.finish`."""
        if not self._waiting:
            return super().finish()
        finished = []
        while self.active:
            finished += self.step()
        return finished

    @serialised
    def close(self) -> None:
        """Take the samples out, and release the buffers; calling it twice is harmless."""
        self._waiting.clear()
        if self._earlier is not None:
            self._earlier.close()
            self._earlier = None
        super().close()
