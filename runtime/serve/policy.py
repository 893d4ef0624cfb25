"""Policies: what a worker does next, as pure functions of what there is to do and of what it costs.

A policy knows no clock, thread or pipeline, so that a simulator can run the same function with a table of costs. It is
asked before every turn, and a turn is one of three things: prepare one request, take the active samples of one bucket
one evaluation further, or decode one image. Samples that a :class:`Step` does not name wait outside their batch, at the
position that they have reached; that costs one copy, so a policy may change its mind at every evaluation.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "POLICIES",
    "Bucket",
    "CostTable",
    "Decode",
    "Item",
    "Policy",
    "Prepare",
    "Step",
    "Turn",
    "Work",
    "alone_s",
    "batch_at_the_door",
    "first_come",
    "left_s",
    "step_level",
]


@dataclass(frozen=True, kw_only=True, order=True)
class Bucket:
    """What must be equal for samples to share a launch, as far as it is known before they are prepared.

    Attributes:
        model: the name under which the bundle is served.
        height: pixels.
        width: pixels.
        more: what else there is: ControlNets, a length of text.
        loras: what tells the LoRAs over the weights from others; a model has one such set at a time.
        stage: what is denoised before the image, such as ``prior``, whose height and width are 1; empty for the image.

    """

    model: str
    height: int
    width: int
    more: tuple[str, ...] = ()
    loras: str = ""
    stage: str = ""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an image takes in one of its stages.

    Attributes:
        bucket: where it runs.
        rows: evaluations of the network at each launch, two with classifier-free guidance.
        evaluations: from the first to the last.

    """

    bucket: Bucket
    rows: int
    evaluations: int


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image, as far as a policy needs to know it.

    Attributes:
        key: which one it is.
        ticket: the request that it belongs to.
        order: of arrival.
        bucket: where it runs, in the stage that it has reached.
        rows: evaluations of the network that it takes at each launch, two with classifier-free guidance.
        left: evaluations before it in this stage; 0 means that it waits to be decoded.
        total: evaluations of this stage, from the first to the last.
        age: seconds since its request was accepted.
        deadline: seconds until its request's time is over; infinite where there is no limit.
        priority: as in vLLM: lower is handled earlier, 0 is usual.
        prepared: whether its text is encoded and its latent started.
        alike: equal for requests that other servers would batch: sizes, steps, guidance, solver.
        before: the stages that it has behind it.
        after: the stages that are to come; the last one is the image's own.

    """

    key: int
    ticket: int
    order: int
    bucket: Bucket
    rows: int
    left: int
    total: int
    age: float
    deadline: float = math.inf
    priority: int = 0
    prepared: bool = True
    alike: Hashable = None
    before: tuple[Work, ...] = ()
    after: tuple[Work, ...] = ()

    @property
    def begun(self) -> bool:
        """Whether its first evaluation is behind it."""
        return bool(self.before) or self.left < self.total


class CostTable(Protocol):
    """Seconds that turns take."""

    def step(self, bucket: Bucket, rows: int) -> float:
        """Return what one evaluation of so many rows takes."""

    def decode(self, bucket: Bucket) -> float:
        """Return what decoding one image takes."""

    def prepare(self, bucket: Bucket) -> float:
        """Return what preparing a request takes."""

    def switch(self, bucket: Bucket) -> float:
        """Return what it takes to bring a bucket's LoRAs over the weights; 0 where they are."""


@dataclass(frozen=True)
class Prepare:
    """Prepare a request."""

    ticket: int


@dataclass(frozen=True)
class Step:
    """Take these images of one bucket one evaluation further."""

    bucket: Bucket
    keys: tuple[int, ...]


@dataclass(frozen=True)
class Decode:
    """Decode one image."""

    key: int


Turn = Prepare | Step | Decode


class Policy(Protocol):
    """Decides about the next turn."""

    def __call__(
        self,
        waiting: Sequence[Item],
        active: Sequence[Item],
        costs: CostTable,
        *,
        slots: Callable[[Bucket], int],
        stepped: bool,
    ) -> Turn | None:
        """Return the next turn, None where there is nothing to do.

        Args:
            waiting: images that hold no slot: not prepared yet, or outside their batch for now.
            active: images in a slot, and those that wait to be decoded.
            costs: what turns take.
            slots: how many images of a bucket can share a launch.
            stepped: whether the last turn was a step: preparing and decoding take turns with steps.

        """


def step_level(
    waiting: Sequence[Item],
    active: Sequence[Item],
    costs: CostTable,
    *,
    slots: Callable[[Bucket], int],
    stepped: bool,
    ageing: float = 1.5,
) -> Turn | None:
    """Choose at every evaluation: shortest remaining work first, with ageing, deadlines and priorities.

    Every image has a weight, what a second of its delay costs: ``slowdown ** ageing / time alone``, with the slowdown
    that it would have if it ran alone from now on. Images are ranked by weight over remaining time, which without the
    power is the order that makes the mean slowdown smallest (Smith's rule); with it, an image that waits becomes urgent
    without limit, so that none starves.

    A second of work on an image brings forward itself and all that are ranked after it, so it is worth the sum of
    their weights. Of every bucket's images, ranked, so many share the launch that what is gained for each second is
    largest, by the costs as measured: where a launch of several takes hardly longer, or many wait, they run together;
    where it takes as long as its members one after the other, the first runs alone. Buckets compete by the same number,
    which is smaller for those whose LoRAs must be brought first, the less work waits for them.
    """
    ready = [item for item in active if not item.left]
    running = [item for item in (*waiting, *active) if item.left]
    if ready and (stepped or not any(item.prepared for item in running)):
        return Decode(_most_urgent(ready, costs, ageing).key)
    chosen = _best_group(running, {item.key for item in active}, costs, slots, ageing)
    if not chosen:
        return None
    missing = [item for item in chosen if not item.prepared]
    others = [item for item in running if item.prepared and not costs.switch(item.bucket)]
    if missing and (stepped or not others):
        return Prepare(missing[0].ticket)
    if len(missing) == len(chosen):  # others go on meanwhile, but not those that would have the LoRAs changed
        chosen = _best_group(others, set(), costs, slots, ageing)
    return Step(chosen[0].bucket, tuple(item.key for item in chosen if item.prepared))


def first_come(
    waiting: Sequence[Item],
    active: Sequence[Item],
    costs: CostTable,
    *,
    slots: Callable[[Bucket], int],
    stepped: bool,
) -> Turn | None:
    """See one request through, then the next, in the order in which they came."""
    if not waiting and not active:
        return None
    first = min((*waiting, *active), key=lambda item: item.order)
    return _together([item for item in (*waiting, *active) if item.ticket == first.ticket], slots)


def batch_at_the_door(
    waiting: Sequence[Item],
    active: Sequence[Item],
    costs: CostTable,
    *,
    slots: Callable[[Bucket], int],
    stepped: bool,
) -> Turn | None:
    """Let requests that are alike begin together, as other servers do; nobody joins them, and all end before others."""
    if active:
        # Those that have begun are the batch, also where more of them are waiting for a slot.
        return _together([*active, *(item for item in waiting if item.begun)], slots)
    if not waiting:
        return None
    first = min(waiting, key=lambda item: item.order)
    alike = sorted((i for i in waiting if i.alike == first.alike and i.bucket == first.bucket), key=lambda i: i.order)
    return _together(alike[: slots(first.bucket)], slots)


POLICIES: Mapping[str, Policy] = {
    "step": step_level,
    "fcfs": first_come,
    "batch-at-the-door": batch_at_the_door,
}


def left_s(item: Item, costs: CostTable) -> float:
    """Return the seconds that an image still takes alone: its stages' evaluations, and its decoding."""
    own = item.left * costs.step(item.bucket, item.rows)
    last = item.after[-1].bucket if item.after else item.bucket
    return own + _work_s(item.after, costs) + costs.decode(last)


def alone_s(item: Item, costs: CostTable) -> float:
    """Return the seconds that an image takes alone from its first evaluation on, decoding included."""
    done = (item.total - item.left) * costs.step(item.bucket, item.rows)
    return _work_s(item.before, costs) + done + left_s(item, costs)


def _work_s(stages: Iterable[Work], costs: CostTable) -> float:
    return sum(work.evaluations * costs.step(work.bucket, work.rows) for work in stages)


def _together(items: Sequence[Item], slots: Callable[[Bucket], int]) -> Turn:
    """Prepare all, then step all, then decode all."""
    for item in items:
        if not item.prepared:
            return Prepare(item.ticket)
    left = sorted((item for item in items if item.left), key=lambda item: (not item.begun, item.order))
    if not left:
        return Decode(min(items, key=lambda item: item.order).key)
    same = [item for item in left if item.bucket == left[0].bucket]
    return Step(left[0].bucket, tuple(item.key for item in same[: slots(left[0].bucket)]))


_HELD = 1.02
"""An image that has a slot is preferred by so much, lest two that are equally urgent take turns."""
_PRIORITY = 4.0
"""How much more urgent an image is than one whose priority is lower by one."""
_DEADLINE = 50.0
"""How much more urgent an image is at most whose deadline is near."""
_LEAST_S = 1e-6


def _best_group(
    items: Iterable[Item],
    held: set[int],
    costs: CostTable,
    slots: Callable[[Bucket], int],
    ageing: float,
) -> list[Item]:
    """Return the images of one bucket by whose common launch most is gained for each second."""
    ranked = []
    for item in items:
        weight, remaining = _weight(item, costs, ageing)
        preferred = _HELD if item.key in held else 1.0
        ranked.append((-preferred * weight / remaining, item.order, item.key, weight, item))
    ranked.sort()
    switch = {item.bucket: costs.switch(item.bucket) for *_, item in ranked}
    work: dict[tuple[str, str], float] = {}
    behind, loaded = 0.0, dict.fromkeys((bucket.model for bucket in switch), 0.0)
    for *_, weight, item in ranked:
        behind += weight
        loaded[item.bucket.model] += 0.0 if switch[item.bucket] else weight
        loras = (item.bucket.model, item.bucket.loras)
        work[loras] = work.get(loras, 0.0) + left_s(item, costs)
    groups: dict[Bucket, list[tuple[float, Item]]] = {}
    for *_, weight, item in ranked:
        group, model = groups.setdefault(item.bucket, []), item.bucket.model
        if len(group) < slots(item.bucket):
            # Changing LoRAs brings nothing forward that needs those that are there.
            forward = behind - (loaded[model] if switch[item.bucket] else 0.0)
            group.append((forward * costs.step(item.bucket, item.rows), item))
        behind = max(0.0, behind - weight)
        loaded[model] -= 0.0 if switch[item.bucket] else weight
    best: list[Item] = []
    most = -1.0
    for bucket, group in groups.items():
        gained, rows, waits = 0.0, 0, work[bucket.model, bucket.loras]
        share = waits / max(waits + switch[bucket], _LEAST_S)
        for count, (gain, item) in enumerate(group, start=1):
            gained, rows = gained + gain, rows + item.rows
            rate = share * gained / max(costs.step(bucket, rows), _LEAST_S)
            if rate > most * (1 + 1e-9):
                most, best = rate, [one for _, one in group[:count]]
    return best


def _most_urgent(items: Iterable[Item], costs: CostTable, ageing: float) -> Item:
    def urgency(item: Item) -> float:
        weight, remaining = _weight(item, costs, ageing)
        return weight / remaining

    return max(items, key=lambda item: (urgency(item), -item.order, -item.key))


def _weight(item: Item, costs: CostTable, ageing: float) -> tuple[float, float]:
    """Return what a second of an image's delay costs, and the seconds that it still needs alone."""
    alone = max(alone_s(item, costs), _LEAST_S)
    remaining = max(left_s(item, costs), _LEAST_S)
    slowdown = max(1.0, (item.age + remaining) / alone)
    boost = float(_PRIORITY ** -max(-10, min(10, item.priority)))
    if remaining < item.deadline < math.inf:  # one that cannot be met any more is nothing to hurry for
        boost *= min(_DEADLINE, item.deadline / (item.deadline - remaining))
    return boost * float(min(slowdown**ageing, 1e100)) / alone, remaining
