"""Runs samples from their first evaluation to their last, in batches that are reused."""

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ...engines.errors import UsageError
from ...engines.memory import Event, Memory
from ..open_engines import Components
from .batch import Batch
from .sample import Sample, checked_samples
from .staged import StagedBatch

__all__ = ["Denoising", "Step"]

_MOST_BATCHES = 4
"""Idle batches that are held for later requests; the one that has been idle for longest is closed first."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The samples after a launch.

    Attributes:
        samples: those that ran, at their new positions. Their ``latent`` may be read and set.
        finished: those of them whose last evaluation this was.
        evaluations: how many evaluations the launch was: more than one if a whole loop is one captured graph.

    """

    samples: tuple[Sample, ...]
    finished: tuple[Sample, ...]
    evaluations: int = 1


class Denoising:
    """Makes batches, and runs samples in them.

    Args:
        components: the engines.

    """

    def __init__(self, components: Components) -> None:
        self._components = components
        self._idle: deque[Batch] = deque()
        self._alive: weakref.WeakSet[Batch] = weakref.WeakSet()
        self._lock = threading.Lock()

    def check(self, samples: Iterable[Sample], *, loras: bool = True) -> list[Sample]:
        """Return samples as a list.

        Args:
            samples: the samples.
            loras: whether they must have been prepared with the current LoRAs.

        Raises:
            UsageError: they are no samples, or were prepared with other components or weights than these.

        """
        listed = checked_samples(samples)
        for sample in listed:
            expected: Any = self._components.weights_of(sample.components)
            actual: Any = sample.weights
            if not loras and isinstance(actual, tuple):  # compare the exported weights alone
                expected, actual = (tuple(w and w[0] for w in weights) for weights in (expected, actual))
            if expected != actual:
                raise UsageError(
                    "this sample was prepared with another bundle, or with other weights: take it to the pipeline that "
                    "prepared it"
                )
        return listed

    def batch(
        self,
        sample: Sample,
        *,
        slots: int,
        rows: int | None = None,
        staged: bool = False,
        use: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        on_close: Callable[[], None] | None = None,
    ) -> Batch:
        """Make a batch for samples like this one; the caller closes it.

        Args:
            sample: see :class:`.Batch`.
            slots: see :class:`.Batch`.
            rows: see :class:`.Batch`.
            staged: whether samples that wait for a prior's may be put in, see :class:`.StagedBatch`.
            use: see :class:`.Batch`.
            on_close: called when the batch is closed, or cannot be made.

        Raises:
            UsageError: the sample was prepared with other components or weights than these.

        """
        cleanup = contextlib.ExitStack()
        if on_close is not None:
            cleanup.callback(on_close)
        try:
            self.check([sample])
            engines = cleanup.enter_context(self._components.use(*sample.components))
            options: Any = {"slots": slots, "rows": rows, "use": use, "on_close": cleanup.close}
            options["home"] = self._components.memory_of("vae_decoder")
            if staged:
                batch: Batch = StagedBatch(engines, sample, prior_batch=self._prior_batch, **options)
            else:
                batch = Batch(engines, sample, **options)
        except BaseException:
            cleanup.close()
            raise
        self._alive.add(batch)
        return batch

    def _prior_batch(self, sample: Sample) -> Batch:
        """Make a batch for a prior's samples, as many as the bundle allows."""
        return self.batch(sample, slots=self._components.spec(sample.components[-1]).axes["S"].max)

    def steps(
        self, samples: Sequence[Sample], *, watched: bool = True, times: list[float] | None = None
    ) -> Generator[Step, None, None]:
        """Run samples to their end, yielding after each launch; samples that are finished already do not run.

        As many run together as the bundle allows; the others follow as slots become free. Samples that cannot share a
        batch run in one batch after the other.

        Args:
            samples: in the order in which they start.
            watched: whether the caller looks at each step: the host then queues no more than one evaluation ahead. If
                not, all evaluations may run as one launch, with ``cuda_graph=loop``.
            times: the milliseconds that each step took are added to it.

        """
        listed = checked_samples(samples)
        prior = list(dict.fromkeys(chain.from_iterable(sample.before for sample in listed if not sample.finished)))
        if prior:
            yield from self.steps(prior, watched=watched, times=times)
        for sample in listed:  # before a batch opens its engines: memory may be scarce
            sample.begin()
        waiting = [sample for sample in listed if not sample.finished]
        while waiting:
            bucket = waiting[0].bucket
            together = [sample for sample in waiting if sample.bucket == bucket]
            waiting = [sample for sample in waiting if sample not in together]
            slots = min(len(together), self._components.spec(together[0].components[-1]).axes["S"].max)
            rows = sum(sorted((sample.rows for sample in together), reverse=True)[:slots])
            captured = not watched and self._components.captures_loop(*together[0].components)
            with self._borrowed(together[0], slots, rows) as batch:
                yield from _run(batch, slots, together, watched=watched, captured=captured, times=times)

    @contextlib.contextmanager
    def _borrowed(self, sample: Sample, slots: int, rows: int) -> Iterator[Batch]:
        """Yield a batch with enough room, an idle one or a new one; afterwards it is idle."""
        with self._lock:
            batch = next((b for b in self._idle if b.has_room(sample, slots, rows)), None)
            if batch is not None:
                self._idle.remove(batch)
            elif len(self._idle) >= _MOST_BATCHES:
                self._idle.popleft().close()
        if batch is None:
            batch = self.batch(sample, slots=slots, rows=rows)
        reusable = False
        try:
            yield batch
            reusable = True  # not after an error: the engines may be in any state
        except GeneratorExit:
            reusable = True
            raise
        finally:
            if reusable and not self._components.low_memory:
                with self._lock:
                    self._idle.append(batch)
            else:
                batch.close()

    def close_idle(self) -> None:
        """Close the batches that are held for later requests."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def close(self) -> None:
        """Close all batches, even those that are in use."""
        with self._lock:
            self._idle.clear()
            for batch in list(self._alive):
                batch.close()


def _run(
    batch: Batch,
    slots: int,
    samples: Sequence[Sample],
    *,
    watched: bool,
    captured: bool,
    times: list[float] | None,
) -> Generator[Step, None, None]:
    queue, events, memory = deque(samples), list[tuple[Event, Event]](), batch.memory
    try:
        while queue or batch.active:
            while queue and len(batch.active) < slots and (batch.fits(queue[0]) or not batch.active):
                batch.put(queue.popleft())
            together, start = batch.active, memory.event()
            before = together[0].position
            finished = batch.finish() if captured else batch.step()
            events.append((start, memory.event()))
            if watched and len(events) > 1:
                memory.wait(events[-2][1])
            yield Step(samples=together, finished=tuple(finished), evaluations=together[0].position - before)
            batch.check_open()
    except GeneratorExit:  # the caller has stopped iterating
        for sample in batch.active:
            batch.take(sample)
        _measure(memory, events, times)
        raise
    _measure(memory, events, times)


def _measure(memory: Memory, events: Sequence[tuple[Event, Event]], times: list[float] | None) -> None:
    if times is not None and events:
        memory.wait(events[-1][1])
        times += [memory.milliseconds(*pair) for pair in events]
