"""The turns of a worker: asks the policy, and does what it says. All of it on the worker's thread."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from ...engines.errors import EngineError, SdengineError
from .batches import Batches, Place, place_of
from .costs import Costs
from .model import Model
from .outcome import outcome_of
from .plan import name_of_loras
from .policy import Bucket, Decode, Item, Policy, Prepare, Step, Work, first_come
from .preview import preview_image
from .ticket import Finished, Outcome, Preview, Progress, Ticket
from .warm_up import warm_up_settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..denoise import Sample
    from .watch import Watch

__all__ = ["Turns"]

_MOST_PLACES = 1000

_log = logging.getLogger("sdengine.serve")


@dataclass(eq=False, kw_only=True)
class _Entry:
    """One image of an open request.

    Attributes:
        stages: what is denoised for it, one after the other; the last one is the image. Empty before it is prepared.
        bucket: where it runs now.
        place: which batch of that bucket.
        suspect: an engine failed while it was in a launch; it is tried once more, from its beginning and alone.
        previewed: how many previews there were.

    """

    key: int
    ticket: Ticket
    index: int
    bucket: Bucket
    place: Place = ("", "")
    stages: "tuple[Sample, ...]" = ()
    image: "Image | None" = None
    suspect: bool = False
    previewed: int = 0

    @property
    def sample(self) -> "Sample":
        """What is denoised now, or has been denoised last."""
        return next((stage for stage in self.stages if not stage.finished), self.stages[-1])

    def planned(self, stage: "Sample") -> Bucket:
        """Return where a stage runs by the request's plan."""
        return self.ticket.plan.stages[-1 if stage is self.stages[-1] else 0].bucket

    @property
    def work(self) -> tuple[Work, ...]:
        """All stages: as they are planned, or as they are once it has been prepared."""
        if not self.stages:
            return self.ticket.plan.stages
        return tuple(Work(bucket=self.planned(s), rows=s.rows, evaluations=s.evaluations) for s in self.stages)

    def item(self, now: float) -> Item:
        """Return it as a policy sees it."""
        ticket, work = self.ticket, self.work
        reached = self.stages.index(self.sample) if self.stages else 0
        own = work[reached]
        return Item(
            key=self.key,
            ticket=ticket.number,
            order=ticket.number,
            bucket=self.bucket,
            rows=own.rows,
            left=own.evaluations - (self.sample.position if self.stages else 0),
            total=own.evaluations,
            before=work[:reached],
            after=work[reached + 1 :],
            age=now - ticket.accepted,
            deadline=math.inf if ticket.deadline is None else ticket.deadline - now,
            priority=ticket.priority,
            prepared=bool(self.stages),
            alike=(ticket.plan.bucket, ticket.plan.alike),
        )


class Turns:
    """Holds the images of open requests, and takes them further turn by turn.

    Args:
        models: by name.
        policy: decides.
        costs: what turns take; measured here.
        watch: its methods are called after each event.

    Attributes:
        active: how many images hold a slot.
        failures: errors of engines since the last launch that succeeded.

    """

    def __init__(self, models: Mapping[str, Model], policy: Policy, costs: Costs, watch: "Watch") -> None:
        self.active = 0
        self.failures = 0
        self._models = models
        self._policy = policy
        self._costs = costs
        self._watch = watch
        self._batches = Batches()
        self._entries: dict[int, _Entry] = {}
        self._keys = count()
        self._variants = count(1)
        self._places: dict[Place, Bucket] = {}
        self._most: dict[Bucket, int] = {}
        self._loras = {name: name_of_loras(model.usual_loras) for name, model in models.items()}
        for name, loras in self._loras.items():
            costs.note_loras(name, loras)
        self._stepped = True
        self._error: Exception | None = None
        self._ended: list[tuple[Ticket, Outcome | Exception]] = []
        self._ended_while_warming: list[tuple[Ticket, Outcome | Exception]] = []

    @property
    def busy(self) -> bool:
        """Whether there is something to do."""
        return bool(self._entries)

    def add(self, ticket: Ticket) -> None:
        """Add the images of a request."""
        for index in range(ticket.plan.images):
            key = next(self._keys)
            self._entries[key] = _Entry(key=key, ticket=ticket, index=index, bucket=ticket.plan.stages[0].bucket)

    def remove(self, ticket: Ticket) -> None:
        """Forget the images of a request; their slots are free."""
        for entry in [entry for entry in self._entries.values() if entry.ticket is ticket]:
            if entry.stages:
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
        self._ended, self._ended_while_warming = self._ended_while_warming, []
        self._do(self._policy)
        return self._ended

    def _do(self, policy: Policy) -> None:
        """Ask a policy, and do what it says."""
        now, held = time.monotonic(), self._batches.active
        waiting: list[Item] = []
        active: list[Item] = []
        for entry in self._entries.values():
            if entry.image is None:
                in_it = bool(entry.stages) and (entry.sample.finished or entry.sample in held)
                (active if in_it else waiting).append(entry.item(now))
        decided = policy(waiting, active, self._costs, slots=self._slots, stepped=self._stepped)
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

    def _slots(self, bucket: Bucket) -> int:
        return self._most.get(bucket, self._models[bucket.model].slots)

    def _prepare(self, number: int) -> None:
        entries = [e for e in self._entries.values() if e.ticket.number == number and not e.stages]
        ticket = entries[0].ticket
        model, started = self._models[ticket.plan.bucket.model], time.monotonic()
        if ticket.begun is None:
            ticket.begun = started
            ticket.times.queue = (started - ticket.accepted) * 1e3
        try:
            self._bring_loras(ticket)
            samples = model.prepare(ticket.plan)
        except Exception as error:
            self._fail(ticket, error)
            return
        for entry in entries:
            entry.stages = (*samples[entry.index].before, samples[entry.index])
            self._settle(entry)
        seconds = time.monotonic() - started
        ticket.times.prepare += seconds * 1e3
        self._costs.note("prepare", ticket.plan.bucket, seconds)
        self._watch.staged("prepare", ticket.plan.bucket, seconds)

    def _bring_loras(self, ticket: Ticket) -> None:
        """Put a request's LoRAs over its model's weights; samples with others wait outside their batches meanwhile."""
        bucket, model = ticket.plan.bucket, self._models[ticket.plan.bucket.model]
        if self._loras[model.name] == bucket.loras:
            ticket.loras = model.pipeline.loras
            return
        self._batches.close_of(model)
        started = time.monotonic()
        model.pipeline.use_loras(ticket.plan.loras)
        seconds = time.monotonic() - started
        self._loras[model.name] = bucket.loras
        self._costs.note_loras(model.name, bucket.loras, seconds)
        ticket.times.loras += seconds * 1e3
        ticket.loras = model.pipeline.loras
        self._watch.staged("loras", bucket, seconds)

    def _settle(self, entry: _Entry) -> None:
        """Find the bucket of what is denoised now: as guessed, or, where others are there already, a variant."""
        model, guessed = self._models[entry.bucket.model], entry.planned(entry.sample)
        entry.place = place = place_of(model, entry.sample)
        if place not in self._places:
            if len(self._places) >= _MOST_PLACES:
                self._forget_places()
            taken = guessed in self._places.values()
            more = (*guessed.more, f"variant {next(self._variants)}") if taken else guessed.more
            self._places[place] = bucket = replace(guessed, more=more)
            most = model.pipeline.components.spec(entry.sample.components[-1]).axes["S"].max
            self._most[bucket] = min(model.slots, most)
        entry.bucket = self._places[place]

    def _forget_places(self) -> None:
        """Forget the places where nothing is: sizes and LoRAs that were asked for once."""
        used = {entry.place for entry in self._entries.values()}
        self._places = {place: bucket for place, bucket in self._places.items() if place in used}
        self._most = {bucket: self._most[bucket] for bucket in self._places.values()}

    def _step(self, entries: Sequence[_Entry]) -> None:
        suspects = [entry for entry in entries if entry.suspect]
        together = suspects[:1] or entries
        samples = list(dict.fromkeys(entry.sample for entry in together))
        bucket, rows = together[0].bucket, sum(sample.rows for sample in samples)
        try:
            self._bring_loras(together[0].ticket)
            batch = self._batches.arrange(self._models[bucket.model], together[0].place, samples)
            started = time.perf_counter()
            batch.step()
            batch.memory.wait(batch.memory.event())
        except Exception as error:
            self._engine_failed(together, error)
            return
        seconds = time.perf_counter() - started
        self.failures = 0
        self._costs.note_step(bucket, rows, seconds)
        tickets = {entry.ticket for entry in together}
        for ticket in tickets:
            ticket.times.denoise += seconds * 1e3
        for entry in together:
            self._tell(entry)
        for entry in self._entries.values():  # the next stage may have begun, also of those that share one
            if len(entry.stages) > 1 and entry.ticket in tickets and entry.image is None:
                self._settle(entry)
        self._watch.stepped(bucket, len(samples), rows, seconds)

    def _tell(self, entry: _Entry) -> None:
        """Tell the caller how far an image is, with a preview where one is due."""
        sample, ticket = entry.stages[-1], entry.ticket
        step, steps = sum(s.step for s in entry.stages), sum(s.schedule.steps for s in entry.stages)
        ticket.tell(Progress(index=entry.index, step=step, steps=steps))
        mapping = self._models[entry.bucket.model].pipeline.bundle.manifest.preview
        if mapping is None or sample.finished or entry.previewed >= ticket.previews:
            return
        if sample.position * (ticket.previews + 1) >= sample.evaluations * (entry.previewed + 1):
            image = preview_image(mapping, sample)
            number, entry.previewed = entry.previewed, entry.previewed + 1
            ticket.tell(Preview(index=entry.index, number=number, step=step, steps=steps, image=image))

    def _engine_failed(self, entries: Sequence[_Entry], error: Exception) -> None:
        """Try each image of a launch that failed once more, alone and from its beginning; then it fails alone."""
        self.failures, self._error = self.failures + 1, error
        ids = sorted({entry.ticket.request_id for entry in entries})
        about = {"request_ids": ids, "images": len(entries)}
        _log.warning("a launch failed: %s", error, exc_info=not _expected(error), extra=about)
        self._batches.drop([entry.sample for entry in entries])
        for entry in entries:
            if entry.suspect or len(entries) == 1:
                self._fail(entry.ticket, error)
            elif entry.key in self._entries:
                entry.suspect, entry.stages, entry.previewed = True, (), 0
                entry.bucket = entry.ticket.plan.stages[0].bucket

    def _decode(self, entry: _Entry) -> None:
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
        self._watch.staged("decode", entry.bucket, seconds)
        model = self._models[entry.bucket.model]
        ticket.tell(Finished(index=entry.index, outcome=outcome_of(ticket, model, [(sample, entry.image)])))
        entries = [e for e in self._entries.values() if e.ticket is ticket]
        if all(e.image is not None for e in entries):
            done: list[Any] = [(e.sample, e.image) for e in sorted(entries, key=lambda e: e.index)]
            self.remove(ticket)
            self._ended.append((ticket, outcome_of(ticket, model, done)))

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        if any(ticket is other for other, _ in self._ended):
            return
        if not _expected(error):
            _log.error("a request failed", exc_info=error, extra={"request_id": ticket.request_id})
            error = EngineError(f"{type(error).__name__}: {error} (this is a bug in sdengine)")
        self.remove(ticket)
        self._ended.append((ticket, error))

    def warm_up(self, model: Model, height: int | None, width: int | None) -> Bucket:
        """See :meth:`.Worker.warm_up`; requests that are under way are seen to their end first.

        Raises:
            SdengineError: why it failed.

        """
        settings = warm_up_settings(model.pipeline.bundle, height, width)
        counts = sorted({1 << i for i in range(model.slots.bit_length())} | {model.slots})
        for images in counts:
            ticket = Ticket(plan=model.plan({**settings, "num_images_per_prompt": images}))
            self._ended, failures = [], self.failures
            self.add(ticket)
            entries = [entry for entry in self._entries.values() if entry.ticket is ticket]
            try:
                while all(entry.image is None for entry in entries) and ticket not in dict(self._ended):
                    self._do(first_come)
                    if self.failures > failures:
                        raise self._error or EngineError("a launch failed")
            finally:
                self.remove(ticket)
                outcome = dict(self._ended).pop(ticket, None)
                self._ended_while_warming += [pair for pair in self._ended if pair[0] is not ticket]
            if isinstance(outcome, Exception):
                raise outcome
        return ticket.plan.bucket


def _expected(error: BaseException) -> bool:
    return isinstance(error, SdengineError)
