"""The turns of a worker: asks the policy, and does what it says. All of it on the worker's thread."""

import logging
import math
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from ...engines.errors import EngineError, SdengineError
from .batches import Batches, place_of
from .costs import Costs
from .model import Model
from .outcome import outcome_of
from .policy import Bucket, Decode, Item, Policy, Prepare, Step
from .ticket import Drawn, Outcome, Preview, Progress, Ticket

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..denoise import Sample
    from .worker import Watch

__all__ = ["Turns"]

_log = logging.getLogger("sdengine.serve")


@dataclass(eq=False, kw_only=True)
class _Entry:
    """One image of an open request.

    Attributes:
        suspect: an engine failed while it was in a launch; it is tried once more, from its beginning and alone.

    """

    key: int
    ticket: Ticket
    index: int
    bucket: Bucket
    place: Hashable = None
    sample: "Sample | None" = None
    image: "Image | None" = None
    suspect: bool = False
    previewed: int = 0

    @property
    def left(self) -> int:
        sample = self.sample
        return self.ticket.plan.evaluations if sample is None else sample.evaluations - sample.position

    def item(self, now: float) -> Item:
        """Return it as a policy sees it."""
        ticket, plan = self.ticket, self.ticket.plan
        return Item(
            key=self.key,
            ticket=ticket.number,
            order=ticket.number,
            bucket=self.bucket,
            rows=plan.rows if self.sample is None else self.sample.rows,
            left=self.left,
            total=plan.evaluations,
            age=now - ticket.accepted,
            deadline=math.inf if ticket.deadline is None else ticket.deadline - now,
            priority=ticket.priority,
            prepared=self.sample is not None,
            alike=(self.bucket, plan.alike),
        )


class Turns:
    """Holds the images of open requests, and takes them further turn by turn.

    Args:
        models: by name.
        policy: decides.
        costs: what turns take; measured here.
        watches: told what happens.

    Attributes:
        active: how many images hold a slot.
        failures: errors of engines since the last launch that succeeded.

    """

    def __init__(self, models: Mapping[str, Model], policy: Policy, costs: Costs, watches: "Sequence[Watch]") -> None:
        self.active = 0
        self.failures = 0
        self._models = models
        self._policy = policy
        self._costs = costs
        self._watches = watches
        self._batches = Batches()
        self._entries: dict[int, _Entry] = {}
        self._keys = count()
        self._places: dict[Hashable, Bucket] = {}
        self._stepped = True
        self._error: Exception | None = None
        self._ended: list[tuple[Ticket, Outcome | Exception]] = []

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._entries)

    def add(self, ticket: Ticket) -> None:
        """Add the images of a request."""
        for index in range(ticket.plan.images):
            key = next(self._keys)
            self._entries[key] = _Entry(key=key, ticket=ticket, index=index, bucket=ticket.plan.bucket)

    def remove(self, ticket: Ticket) -> None:
        """Forget the images of a request; their slots are free."""
        for entry in [entry for entry in self._entries.values() if entry.ticket is ticket]:
            if entry.sample is not None:
                self._batches.remove(entry.sample)
            del self._entries[entry.key]
        self.active = len(self._batches.active)

    def close(self) -> None:
        """Release the batches."""
        self._entries.clear()
        self._batches.close()
        self.active = 0

    def turn(self) -> list[tuple[Ticket, Outcome | Exception]]:
        """Do one thing; return the requests that it brings to an end, and how."""
        self._ended = []
        now, held = time.monotonic(), self._batches.active
        waiting: list[Item] = []
        active: list[Item] = []
        for entry in self._entries.values():
            if entry.image is None:
                in_it = entry.sample is not None and (entry.sample.finished or entry.sample in held)
                (active if in_it else waiting).append(entry.item(now))
        decided = self._policy(waiting, active, self._costs, slots=self._slots, stepped=self._stepped)
        self._stepped = isinstance(decided, Step)
        match decided:
            case Prepare():
                self._prepare(decided.ticket)
            case Step():
                self._step([self._entries[key] for key in decided.keys])
            case Decode():
                self._decode(self._entries[decided.key])
            case None if waiting or active:
                raise AssertionError(f"the policy leaves {len(waiting) + len(active)} images without a turn")
        self.active = len(self._batches.active)
        return self._ended

    def _slots(self, bucket: Bucket) -> int:
        return self._models[bucket.model].slots

    def _prepare(self, number: int) -> None:
        entries = [e for e in self._entries.values() if e.ticket.number == number and e.sample is None]
        ticket = entries[0].ticket
        model, started = self._models[ticket.plan.bucket.model], time.monotonic()
        if ticket.begun is None:
            ticket.begun = started
            ticket.times.queue = (started - ticket.accepted) * 1e3
        try:
            samples = model.prepare(ticket.plan)
        except Exception as error:
            self._fail(ticket, error)
            return
        for entry in entries:
            entry.sample = samples[entry.index]
            entry.place = place_of(model, entry.sample)
            entry.bucket = self._bucket(entry.place, ticket.plan.bucket)
        seconds = time.monotonic() - started
        ticket.times.prepare += seconds * 1e3
        self._costs.note("prepare", ticket.plan.bucket, seconds)
        for watch in self._watches:
            watch.staged("prepare", ticket.plan.bucket, seconds)

    def _bucket(self, place: Hashable, guessed: Bucket) -> Bucket:
        """Return the bucket of a place: as it was guessed before preparing, or, where others are there, a new one."""
        if place not in self._places:
            variants = sum(replace(bucket, more=guessed.more) == guessed for bucket in self._places.values())
            more = (*guessed.more, f"variant {variants}") if variants else guessed.more
            self._places[place] = replace(guessed, more=more)
        return self._places[place]

    def _step(self, entries: Sequence[_Entry]) -> None:
        suspects = [entry for entry in entries if entry.suspect]
        together = suspects[:1] or entries
        samples = [entry.sample for entry in together if entry.sample is not None]
        bucket, rows = together[0].bucket, sum(sample.rows for sample in samples)
        try:
            batch = self._batches.arrange(self._models[bucket.model], together[0].place, samples)
            started = time.perf_counter()
            batch.step()
            batch.memory.wait(batch.memory.mark())
        except Exception as error:
            self._engine_failed(together, error)
            return
        seconds = time.perf_counter() - started
        self.failures = 0
        self._costs.note_step(bucket, rows, seconds)
        for ticket in {entry.ticket for entry in together}:
            ticket.times.denoise += seconds * 1e3
        for entry in together:
            self._tell(entry)
        for watch in self._watches:
            watch.stepped(bucket, len(samples), rows, seconds)

    def _tell(self, entry: _Entry) -> None:
        """Tell the caller how far an image is, with a preview where one is due."""
        sample, ticket = entry.sample, entry.ticket
        assert sample is not None
        step, steps = sample.step, sample.schedule.steps
        ticket.tell(Progress(index=entry.index, step=step, steps=steps))
        due = entry.previewed < ticket.previews and not sample.finished
        if due and sample.position * (ticket.previews + 1) >= sample.evaluations * (entry.previewed + 1):
            image = self._models[entry.bucket.model].previewer.show(sample)
            number, entry.previewed = entry.previewed, entry.previewed + 1
            ticket.tell(Preview(index=entry.index, number=number, step=step, steps=steps, image=image))

    def _engine_failed(self, entries: Sequence[_Entry], error: Exception) -> None:
        """Try each image of a launch that failed once more, alone and from its beginning; then it fails alone."""
        self.failures, self._error = self.failures + 1, error
        _log.warning("a launch of %d images failed: %s", len(entries), error, exc_info=not _expected(error))
        self._batches.drop([entry.sample for entry in entries if entry.sample is not None])
        for entry in entries:
            if entry.suspect or len(entries) == 1:
                self._fail(entry.ticket, error)
            elif entry.key in self._entries:
                entry.suspect, entry.sample, entry.previewed = True, None, 0

    def _decode(self, entry: _Entry) -> None:
        assert entry.sample is not None
        started = time.monotonic()
        ticket, sample = entry.ticket, entry.sample
        try:
            entry.image = self._models[entry.bucket.model].decode(sample)
        except Exception as error:
            self._fail(ticket, error)
            return
        seconds = time.monotonic() - started
        ticket.times.decode += seconds * 1e3
        self._costs.note("decode", entry.bucket, seconds)
        for watch in self._watches:
            watch.staged("decode", entry.bucket, seconds)
        model = self._models[entry.bucket.model]
        ticket.tell(Drawn(index=entry.index, outcome=outcome_of(ticket, model, [(sample, entry.image)])))
        entries = [e for e in self._entries.values() if e.ticket is ticket]
        if all(e.image is not None for e in entries):
            done: list[Any] = [(e.sample, e.image) for e in sorted(entries, key=lambda e: e.index)]
            self.remove(ticket)
            self._ended.append((ticket, outcome_of(ticket, model, done)))

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        if any(ticket is other for other, _ in self._ended):
            return
        if not _expected(error):
            _log.error("request %s failed", ticket.request_id, exc_info=error)
            error = EngineError(f"{type(error).__name__}: {error} (this is a bug in sdengine)")
        self.remove(ticket)
        self._ended.append((ticket, error))

    def warm_up(self, model: Model, height: int | None, width: int | None) -> Bucket:
        """See :meth:`.Worker.warm_up`; nothing else is under way."""
        sizes = sorted({1 << i for i in range(model.slots.bit_length()) if 1 << i <= model.slots} | {model.slots})
        settings = {"height": height, "width": width, "num_inference_steps": 2 * len(sizes) + 1}
        given = {name: value for name, value in settings.items() if value is not None}
        plan = model.plan({"prompt": "", "seed": 0, "num_images_per_prompt": model.slots, **given})
        ticket = Ticket(plan=plan)
        self._ended = []
        self.add(ticket)
        self._prepare(ticket.number)
        entries = [entry for entry in self._entries.values() if entry.ticket is ticket]
        for size in sizes:
            for _ in range(2):  # the first may compile something
                if not self._ended and not self.failures:
                    self._step(entries[:size])
            if self.failures:
                self._ended.append((ticket, self._error or EngineError("a launch failed")))
                break
        if not self._ended:
            self._decode(entries[0])
            model.previewer.fit()
        self.remove(ticket)
        for _, outcome in self._ended:
            if isinstance(outcome, Exception):
                raise outcome
        return plan.bucket


def _expected(error: BaseException) -> bool:
    return isinstance(error, SdengineError)
