"""The batches of the buckets in use, and who is in them."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .model import Model

if TYPE_CHECKING:
    from ..denoise import Batch, Sample

__all__ = ["Batches", "Place", "place_of"]

Place = tuple[str, str]
"""A model, and what tells its buckets apart."""
_MOST = 4
"""Batches with memory of their own; the one unused for longest goes first, and its samples wait outside."""


class Batches:
    """Makes a batch for each bucket, puts samples in and takes them out."""

    def __init__(self) -> None:
        self._batches: OrderedDict[Place, Batch] = OrderedDict()

    def arrange(self, model: Model, place: Place, samples: "Sequence[Sample]") -> "Batch":
        """Return a batch that holds these samples and no others.

        Args:
            model: the bundle that they were prepared with.
            place: equal for samples that can share a batch; see :func:`place_of`.
            samples: at most as many as the model has slots.

        Raises:
            UsageError: the samples do not fit together.
            EngineError: an engine cannot be opened, or has no memory.

        """
        if place not in self._batches:
            while len(self._batches) >= _MOST:
                self._batches.popitem(last=False)[1].close()
            self._batches[place] = model.pipeline.batch(samples[0], slots=model.slots)
        self._batches.move_to_end(place)
        batch = self._batches[place]
        for sample in batch.active:
            if sample not in samples:
                batch.take(sample)
        held = batch.active
        for sample in samples:
            if sample not in held:
                batch.put(sample)
        return batch

    def remove(self, sample: "Sample") -> None:
        """Take a sample out of its batch, if it is in one."""
        for batch in self._batches.values():
            if sample in batch.active:
                batch.take(sample)

    def drop(self, samples: "Sequence[Sample]") -> None:
        """Close the batches that hold these samples: after an error of an engine they may be in any state."""
        for key, batch in list(self._batches.items()):
            if any(sample in samples for sample in batch.active):
                del self._batches[key]
                batch.close()

    def close_of(self, model: Model) -> None:
        """Close the batches of a model, whose weights are to change; their samples wait outside."""
        for place, batch in list(self._batches.items()):
            if place[0] == model.name:
                del self._batches[place]
                batch.close()

    @property
    def active(self) -> "frozenset[Sample]":
        """The samples that hold a slot."""
        return frozenset(sample for batch in self._batches.values() for sample in batch.active)

    def close(self) -> None:
        """Close all of them."""
        while self._batches:
            self._batches.popitem()[1].close()


def place_of(model: Model, sample: "Sample") -> Place:
    """Return what tells batches apart; to be computed once for each sample."""
    return model.name, repr(sample.bucket)
