"""A batch for families with a prior: while samples wait for the prior's, those share launches in a batch beside it."""

from collections.abc import Callable, Sequence
from typing import Any

from ...engines.engine import Engine
from ...engines.errors import UsageError
from .batch import Batch, running, serialised
from .sample import Sample, checked_samples

__all__ = ["StagedBatch"]


class StagedBatch(Batch):
    """As :class:`.Batch`, for samples that wait for samples of a prior (:attr:`~.sample.Sample.before`).

    A sample that is put in takes a slot from then on. As long as it waits, the prior's samples are denoised in a batch
    of their own, together with those of the other waiting samples; then it begins.

    Args:
        engines: see :class:`.Batch`.
        sample: see :class:`.Batch`.
        prior_batch: called with a prior's sample, makes a batch for samples like it.
        options: the other arguments of :class:`.Batch`.

    """

    def __init__(
        self, engines: Sequence[Engine], sample: Sample, *, prior_batch: Callable[[Sample], Batch], **options: Any
    ) -> None:
        super().__init__(engines, sample, **options)
        self._make_prior_batch = prior_batch
        self._prior_batch: Batch | None = None
        self._waiting: list[Sample] = []

    @property
    def active(self) -> tuple[Sample, ...]:
        """The samples in it: those that run, in the order of their slots, then those that wait."""
        return (*super().active, *self._waiting)

    def fits(self, sample: Sample) -> bool:
        """Whether the sample can be put in now."""
        return len(self.active) < self.slots and sample not in self._waiting and super().fits(sample)

    @running
    def put(self, sample: Sample) -> None:
        """Put a sample in, also one that still waits for its prior's samples; see :meth:`.Batch.put`."""
        checked_samples([sample])
        if sample in self._waiting:
            raise UsageError("this sample is in a batch already")
        self._check(sample)
        if len(self.active) == self.slots:
            raise UsageError(f"all {self.slots} slots of this batch are taken")
        if _is_ready(sample):
            super().put(sample)
        else:
            self._waiting.append(sample)

    @serialised
    def take(self, sample: Sample) -> None:
        """Take a sample out, and the prior's samples that it waits for; see :meth:`.Batch.take`."""
        if sample not in self._waiting:
            super().take(sample)
            return
        self._waiting.remove(sample)
        if self._prior_batch is not None:
            for prior_sample in self._prior_batch.active:
                if prior_sample in sample.before:
                    self._prior_batch.take(prior_sample)

    @running
    def step(self) -> list[Sample]:
        """Run one evaluation of every sample that has begun, and one of the prior's samples that others wait for.

        That is one launch for each of the two batches that has samples; see :meth:`.Batch.step`.
        """
        for sample in [sample for sample in self._waiting if _is_ready(sample)]:
            self._waiting.remove(sample)
            super().put(sample)
        if self._waiting:
            self._step_prior()
        elif self._prior_batch is not None and not self._prior_batch.active:
            self._prior_batch.close()  # the next sample that waits may come much later
            self._prior_batch = None
        return super().step() if self._members or not self._waiting else []

    def _step_prior(self) -> None:
        """Put as many of the prior's samples into their batch as fit, and run one evaluation of them."""
        queue = [
            prior_sample for sample in self._waiting for prior_sample in sample.before if not prior_sample.finished
        ]
        if self._prior_batch is None:
            self._prior_batch = self._make_prior_batch(queue[0])
        active = self._prior_batch.active
        for prior_sample in queue:
            if prior_sample not in active and self._prior_batch.fits(prior_sample):
                self._prior_batch.put(prior_sample)
        self._prior_batch.step()

    @running
    def finish(self) -> list[Sample]:
        """Run every active sample to its end; see :meth:`.Batch.finish`."""
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
        if self._prior_batch is not None:
            self._prior_batch.close()
            self._prior_batch = None
        super().close()


def _is_ready(sample: Sample) -> bool:
    """Whether the prior's samples that a sample waits for are finished."""
    return all(prior_sample.finished for prior_sample in sample.before)
