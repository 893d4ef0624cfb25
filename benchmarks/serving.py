"""How long requests take that come to one worker as they will, under each policy.

    python benchmarks/serving.py sdengine-demo/bundle [--engine openvino] [--minutes 10] [--costs costs.json]

The bundle must take the sizes (``sdengine export demo --sizes 64..256 --batch 1..8``). First every kind of request is
drawn alone, three times, and the capacity is measured: requests a second of the step-level policy that always has a
queue. Then, at each share of that capacity, every policy gets the same trace (``serving_load.py``). Latency counts from
when a request should have come, whatever held it up. Beside each row stands what ``serving_simulator.py`` makes of the
same trace with the costs of that very run; the costs of all runs go to a file that it reads.
"""

import argparse
import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any

from PIL import Image
from sdengine.runtime import Pipeline
from sdengine.runtime.serve import Outcome, Ticket, Worker
from sdengine.runtime.serve.policy import POLICIES, Bucket
from serving_load import CLASSES, HEADER, STEPS, STRENGTH, Arrival, Served, figures, rows, trace
from serving_simulator import simulate, table_from

PROMPTS = ("a red circle", "a blue square", "a green triangle", "two yellow circles")
ALONE_RUNS = 3


@dataclass
class Recorder:
    """Adds up what turns take; see :class:`~sdengine.runtime.serve.watch.Watch`."""

    steps: dict[tuple[int, int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    stages: dict[tuple[int, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    between: list[float] = field(default_factory=list)
    """Seconds between turns, while there was something to do."""
    requests: int = 0
    """How many are at the worker."""
    _last: float | None = None

    def stepped(self, bucket: Bucket, images: int, rows: int, seconds: float) -> None:
        self.steps[bucket.width, images, rows].append(seconds)
        self._note(seconds)

    def staged(self, stage: str, bucket: Bucket, seconds: float) -> None:
        self.stages[bucket.width, stage].append(seconds)
        self._note(seconds)

    def submitted(self) -> None:
        self.requests += 1

    def ended(self, ticket: Ticket, outcome: Outcome | Exception) -> None:
        self.requests -= 1
        if not self.requests:
            self._last = None  # the worker has nothing to do

    def clear(self) -> None:
        """Forget what was recorded."""
        self.steps.clear()
        self.stages.clear()
        self.between.clear()

    def _note(self, seconds: float) -> None:
        now = time.monotonic()
        if self._last is not None:
            self.between.append(now - self._last - seconds)
        self._last = now

    def table(self, sizes: Sequence[int], slots: int) -> dict[str, Any]:
        """Return the costs as the simulator reads them."""
        costs: dict[str, Any] = {str(size): {"step": {}} for size in sizes}
        for (size, images, n), seconds in sorted(self.steps.items()):
            costs[str(size)]["step"][f"{images}x{n}"] = fmean(seconds)
        for (size, stage), seconds in self.stages.items():
            costs[str(size)][stage] = fmean(seconds)
        return {"sizes": list(sizes), "slots": slots, "turn": fmean(self.between), "costs": costs}


class Bench:
    """One bundle, opened anew for each run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sizes: tuple[int, ...] = tuple(options.sizes)
        self.all = Recorder()
        self.slots = 0

    async def run(self, arrivals: Sequence[Arrival], policy: str, alone: dict[Any, float]) -> tuple[list[Served], Any]:
        """Let the requests of a trace come; return how they fared, and the costs of the run."""
        recorder, opts = Recorder(), self.options
        pipeline = Pipeline.load(opts.bundle, engine=opts.engine)
        limits = {"max_num_seqs": opts.slots, "max_num_queued": 10**6}
        async with Worker(pipeline, policy=policy, watches=[recorder], **limits) as worker:
            self.slots = next(iter(worker.models.values())).slots
            for size in self.sizes:
                await asyncio.wrap_future(worker.warm_up(next(iter(worker.models)), size, size))
            recorder.clear()
            start = time.monotonic()
            served = await asyncio.gather(*(self._one(worker, start, a, alone, recorder) for a in arrivals))
        for mine, all_of in ((recorder.steps, self.all.steps), (recorder.stages, self.all.stages)):
            for key, seconds in mine.items():
                all_of[key] += seconds  # type: ignore[index]
        self.all.between += recorder.between
        return list(served), recorder.table(self.sizes, self.slots)

    async def _one(
        self, worker: Worker, start: float, arrival: Arrival, alone: dict[Any, float], recorder: Recorder | None = None
    ) -> Served:
        await asyncio.sleep(max(0.0, start + arrival.at - time.monotonic()))
        came = start + arrival.at if arrival.at else time.monotonic()
        settings: dict[str, Any] = {"height": arrival.size, "width": arrival.size}
        if arrival.edited:
            settings = {"image": Image.new("RGB", (arrival.size, arrival.size), "teal"), "strength": STRENGTH}
        if recorder is not None:
            recorder.submitted()
        ticket = worker.submit(
            prompt=PROMPTS[arrival.steps % len(PROMPTS)],
            num_inference_steps=arrival.steps,
            guidance_scale=5.0 if arrival.guided else 1.0,
            seed=arrival.steps,
            **settings,
        )
        await ticket.result()
        done = time.monotonic()
        assert ticket.begun is not None
        return Served(
            arrival=arrival, wait=ticket.begun - came, latency=done - came, alone=alone.get(arrival.alike, 1.0)
        )

    async def alone(self) -> dict[Any, float]:
        """Return what each kind of request takes on an idle worker, median of a few."""
        found = {}
        for steps, guided, size, edited in product(STEPS, (False, True), self.sizes, (False, True)):
            arrival = Arrival(at=0.0, steps=steps, guided=guided, size=size, edited=edited)
            found[arrival.alike] = arrival
        async with Worker(Pipeline.load(self.options.bundle, engine=self.options.engine)) as worker:
            taken = {}
            for alike, arrival in found.items():
                runs = [(await self._one(worker, 0.0, arrival, {})).latency for _ in range(ALONE_RUNS)]
                taken[alike] = median(runs)
        return taken


async def measure(options: argparse.Namespace) -> None:
    bench = Bench(options)
    alone = await bench.alone()
    rate = options.capacity
    if rate is None:
        backlog = [Arrival(**{**vars(a), "at": 0.0}) for a in trace(1.0, options.backlog, bench.sizes)]
        served, _ = await bench.run(backlog, "step", alone)
        rate = len(served) / max(one.latency for one in served)
    print(f"{options.bundle}, {options.engine}, {bench.sizes}, {options.minutes:g} minutes a row, {bench.slots} slots")
    print(f"capacity: {rate:.3g} requests/s\n")
    print("| load | policy | class | throughput, 1/s " + HEADER[0] + "\n| ---: | --- | --- | ---: " + HEADER[1])
    for load in options.loads:
        seconds = options.minutes * 60
        arrivals = trace(load * rate, seconds, bench.sizes)
        for policy in options.policies:
            served, costs = await bench.run(arrivals, policy, alone)
            simulated = simulate(arrivals, table_from(costs), policy, alone=lambda arrival, _: alone[arrival.alike])
            for kind in CLASSES:
                shown = f"{_throughput(served):.3g} " if kind == "all" else ""
                print(f"| {load:.0%} | {policy} | {kind} | {shown}" + rows(figures(served, kind)))
            text = f"| {load:.0%} | {policy} | all, simulated | {_throughput(simulated):.3g} "
            print(text + rows(figures(simulated)), flush=True)
    if options.costs:
        options.costs.write_text(json.dumps(bench.all.table(bench.sizes, bench.slots), indent=1) + "\n")


def _throughput(served: Sequence[Served]) -> float:
    return len(served) / max(one.arrival.at + one.latency for one in served)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--sizes", type=int, nargs=2, default=[128, 192], help="pixels a side")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.8, 0.95], help="shares of the capacity")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--minutes", type=float, default=10.0, help="of each trace")
    parser.add_argument("--slots", type=int, help="images that share a launch at most; as many as the bundle takes")
    parser.add_argument("--capacity", type=float, help="requests a second, in place of measuring them")
    parser.add_argument("--backlog", type=int, default=150, help="requests with which the capacity is measured")
    parser.add_argument("--costs", type=Path, help="file to write the costs to")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
