"""Where a server of many replicas breaks, what each policy costs, and how a router matters.

    python benchmarks/serving_simulator.py h100
    python benchmarks/serving_simulator.py COSTS.json          written by benchmarks/serving.py
    python benchmarks/serving_simulator.py h100 --replicas 1 10 100 1000 --load 0.8

Replicas ask the function that ``sdengine serve`` asks (``sdengine.runtime.serve.policy``), and each turn takes what the
table of costs says. ``h100`` is SDXL at 1024x1024 on one H100, from figures that were published or measured:

- a step of two rows, 30.8 ms: measured, 925 ms of denoising for 30 steps (benchmarks/gpu/README.md, with kernels);
- each further row, 9.5 ms: what MLPerf Inference v5.1's 2.26 images/s for each H100 at 20 steps leaves for a row
  in large batches (benchmarks/bench/published.json), when decoding has been taken off;
- decoding 64 ms and preparing 20 ms: measured, the middle of what is in benchmarks/gpu/README.md;
- at 768x768, in proportion to the pixels: assumed.
"""

import argparse
import heapq
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from sdengine.runtime.serve.costs import Costs
from sdengine.runtime.serve.policy import POLICIES, Bucket, Decode, Item, Policy, Prepare, Step, left_s
from serving_load import CLASSES, HEADER, Arrival, Served, figures, rows, trace

__all__ = ["ROUTERS", "Table", "alone", "capacity", "h100", "simulate", "table_from"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a replica's turns cost.

    Attributes:
        costs: seconds of steps, decoding and preparing.
        images: seconds of steps by pixels a side, images and rows; where there are none, images do not matter.
        sizes: pixels a side of the requests.
        slots: images that share a launch at most.
        turn: seconds of each turn beside them: the policy, and telling callers.

    """

    costs: Costs
    images: Mapping[tuple[int, int, int], float] = field(default_factory=dict)
    sizes: tuple[int, int]
    slots: int
    turn: float = 0.0
    _known: dict[tuple[object, ...], float] = field(default_factory=dict)

    def step(self, bucket: Bucket, rows: int) -> float:
        """See :class:`~sdengine.runtime.serve.policy.CostTable`."""
        key = (bucket.width, rows)
        if key not in self._known:
            self._known[key] = self.costs.step(bucket, rows)
        return self._known[key]

    def launch(self, bucket: Bucket, images: int, rows: int) -> float:
        """Return the seconds of a step of so many images on so many rows."""
        known = self.images.get((bucket.width, images, rows))
        return self.step(bucket, rows) if known is None else known

    def decode(self, bucket: Bucket) -> float:
        """See :class:`~sdengine.runtime.serve.policy.CostTable`."""
        key = (bucket.width, "decode")
        if key not in self._known:
            self._known[key] = self.costs.decode(bucket)
        return self._known[key]

    def prepare(self, bucket: Bucket) -> float:
        """See :class:`~sdengine.runtime.serve.policy.CostTable`."""
        return self.costs.prepare(bucket)

    def switch(self, bucket: Bucket) -> float:
        """See :class:`~sdengine.runtime.serve.policy.CostTable`."""
        return 0.0


def bucket_of(size: int) -> Bucket:
    return Bucket(model="bundle", height=size, width=size)


def h100() -> Table:
    """Return the table that the module's docstring explains."""
    costs, decode, row = Costs(), 0.064, (1 / 2.26 - 0.064) / 40
    for size in (768, 1024):
        share = (size / 1024) ** 2
        for n in range(1, 17):
            costs.note_step(bucket_of(size), n, share * (0.0308 + (n - 2) * row))
        costs.note("decode", bucket_of(size), share * decode)
        costs.note("prepare", bucket_of(size), 0.020)
    return Table(costs=costs, sizes=(768, 1024), slots=8)


def table_from(data: dict[str, object]) -> Table:
    """Read a table: by size ``step`` (by images and rows: ``2x4``), ``decode`` and ``prepare``, and other fields."""
    costs, images = Costs(), dict[tuple[int, int, int], float]()
    for size, known in data["costs"].items():  # type: ignore[attr-defined]
        bucket = bucket_of(int(size))
        for counts, seconds in known["step"].items():
            several, n = map(int, counts.split("x"))
            images[int(size), several, n] = seconds
            costs.note_step(bucket, n, seconds)
        for stage in ("decode", "prepare"):
            costs.note(stage, bucket, known[stage])
    rest = {name: tuple(value) if isinstance(value, list) else value for name, value in data.items() if name != "costs"}
    return Table(costs=costs, images=images, **rest)  # type: ignore[arg-type]


def alone(arrival: Arrival, table: Table) -> float:
    """Return what a request takes on an idle replica."""
    bucket = bucket_of(arrival.size)
    turns = (arrival.evaluations + 2) * table.turn
    steps = arrival.evaluations * table.launch(bucket, 1, arrival.rows)
    return turns + table.prepare(bucket) + steps + table.decode(bucket)


@dataclass(slots=True)
class _Image:
    """An image on its way through a replica."""

    key: int
    arrival: Arrival
    bucket: Bucket
    left: int
    arrived: float
    prepared: bool = False
    begun: float = 0.0

    def item(self, now: float) -> Item:
        a = self.arrival
        return Item(
            key=self.key,
            ticket=self.key,
            order=self.key,
            bucket=self.bucket,
            rows=a.rows,
            left=self.left,
            total=a.evaluations,
            age=now - self.arrived,
            prepared=self.prepared,
            alike=(self.bucket, a.alike),
        )


class Replica:
    """Does what a worker does, in no time. What turns cost it learns as a worker does, from those that it has taken."""

    def __init__(self, policy: Policy, table: Table) -> None:
        self._costs = Costs()
        for bucket in map(bucket_of, table.sizes):  # as a worker's warm-up does
            self._costs.note_step(bucket, 1, table.step(bucket, 1))
            self._costs.note("prepare", bucket, table.prepare(bucket))
            self._costs.note("decode", bucket, table.decode(bucket))
        self.images: dict[int, _Image] = {}
        self.work = 0.0
        """Seconds that its images still take, each alone."""
        self.busy = False
        self._policy = policy
        self._table = table
        self._held: dict[Bucket, frozenset[int]] = {}
        self._stepped = True

    def add(self, image: _Image) -> None:
        """Take an image."""
        self.images[image.key] = image
        self.work += left_s(image.item(image.arrived), self._table)

    def turn(self, now: float) -> tuple[float, _Image | None]:
        """Do one thing; return the seconds that it takes, and the image that is done."""
        table, waiting, active = self._table, list[Item](), list[Item]()
        held = frozenset().union(*self._held.values())
        for image in self.images.values():
            (active if (image.prepared and not image.left) or image.key in held else waiting).append(image.item(now))
        decided = self._policy(waiting, active, self._costs, slots=lambda _: table.slots, stepped=self._stepped)
        self._stepped = isinstance(decided, Step)
        if isinstance(decided, Prepare):
            image = self.images[decided.ticket]
            image.prepared, image.begun = True, now
            seconds = table.prepare(image.bucket)
            self._costs.note("prepare", image.bucket, seconds)
            return table.turn + seconds, None
        if isinstance(decided, Decode):
            image = self.images.pop(decided.key)
            self.work -= table.decode(image.bucket)
            seconds = table.decode(image.bucket)
            self._costs.note("decode", image.bucket, seconds)
            return table.turn + seconds, image
        assert isinstance(decided, Step), "there is something to do"
        launched = [self.images[key] for key in decided.keys]
        for image in launched:
            image.left -= 1
            self.work -= table.step(image.bucket, image.arrival.rows)
        # Who is finished has left its slot; who is not in the launch waits outside.
        self._held[decided.bucket] = frozenset(image.key for image in launched if image.left)
        rows = sum(image.arrival.rows for image in launched)
        seconds = table.launch(decided.bucket, len(launched), rows)
        self._costs.note_step(decided.bucket, rows, seconds)
        return table.turn + seconds, None


Router = Callable[[Sequence[Replica], random.Random, int], int]


def _two(replicas: Sequence[Replica], rng: random.Random, _: int) -> int:
    """Return the one with fewer requests of two that were drawn by lot, as Ray Serve does."""
    pair = rng.randrange(len(replicas)), rng.randrange(len(replicas))
    return min(pair, key=lambda index: len(replicas[index].images))


ROUTERS: dict[str, Router] = {
    "random": lambda replicas, rng, _: rng.randrange(len(replicas)),
    "round robin": lambda replicas, _, number: number % len(replicas),
    "fewer requests of two": _two,
    "least work": lambda replicas, _, __: min(range(len(replicas)), key=lambda index: replicas[index].work),
}


def simulate(
    arrivals: Sequence[Arrival],
    table: Table,
    policy: str,
    *,
    replicas: int = 1,
    router: str = "least work",
    alone: Callable[[Arrival, Table], float] = alone,
) -> list[Served]:
    """Let requests come to replicas until all are done; they are returned in the order in which they ended.

    Args:
        arrivals: the requests.
        table: what turns cost.
        policy: its name.
        replicas: how many.
        router: its name.
        alone: returns what a request takes on an idle replica.

    """
    workers = [Replica(POLICIES[policy], table) for _ in range(replicas)]
    rng, route, keys, served = random.Random(0), ROUTERS[router], count(), list[Served]()
    turns: list[tuple[float, int, int, _Image | None]] = []  # when one ends, a number, whose it is, what it completes
    numbers, following = count(), 0

    def begin(index: int, now: float) -> None:
        worker = workers[index]
        worker.busy = bool(worker.images)
        if worker.busy:
            seconds, image = worker.turn(now)
            heapq.heappush(turns, (now + seconds, next(numbers), index, image))

    while following < len(arrivals) or turns:
        if not turns or (following < len(arrivals) and arrivals[following].at <= turns[0][0]):
            arrival = arrivals[following]
            index = route(workers, rng, following)
            following += 1
            key = next(keys)
            workers[index].add(_Image(key, arrival, bucket_of(arrival.size), arrival.evaluations, arrival.at))
            if not workers[index].busy:
                begin(index, arrival.at)
            continue
        now, _, index, image = heapq.heappop(turns)
        if image is not None:
            a, arrived = image.arrival, image.arrived
            served.append(Served(arrival=a, wait=image.begun - arrived, latency=now - arrived, alone=alone(a, table)))
        begin(index, now)
    return served


def capacity(table: Table, requests: int = 400) -> float:
    """Return requests a second of one replica that always has a queue, step by step."""
    arrivals = [Arrival(**{**vars(a), "at": 0.0}) for a in trace(1.0, requests, table.sizes)]
    served = simulate(arrivals, table, "step")
    return len(served) / max(one.latency for one in served)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("costs", help="h100, or a file of costs")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1])
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.8, 0.95], help="shares of the capacity")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--routers", nargs="+", default=["least work"])
    parser.add_argument("--requests", type=int, default=3000, help="for each row of the table, or 60 for each replica")
    parser.add_argument("--classes", action="store_true", help="rows for each class of requests")
    options = parser.parse_args()
    table = h100() if options.costs == "h100" else table_from(json.loads(Path(options.costs).read_text()))
    rate = capacity(table)
    print(f"capacity of one replica: {rate:.3g} requests/s\n")
    print("| replicas | load | router | policy | class " + HEADER[0] + "\n| ---: | ---: | --- | --- | --- " + HEADER[1])
    for replicas in options.replicas:
        count = max(options.requests, 60 * replicas) if replicas > 1 else options.requests
        for load in options.loads:
            arrivals = trace(load * rate * replicas, count / (load * rate * replicas), table.sizes)
            for router in options.routers:
                for policy in options.policies:
                    served = simulate(arrivals, table, policy, replicas=replicas, router=router)
                    for kind in CLASSES if options.classes else ["all"]:
                        cells = f"| {replicas} | {load:.0%} | {router} | {policy} | {kind} "
                        print(cells + rows(figures(served, kind)), flush=True)


if __name__ == "__main__":
    main()
