"""What servers are measured with: a trace of arrivals, and figures of how its requests fared.

Arrivals are Poisson's and do not wait for answers. A request has 4 to 40 steps, guidance or none, one of two sizes; a
tenth starts from an image.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CLASSES", "HEADER", "Arrival", "Served", "figures", "rows", "trace"]

STEPS = (4, 8, 20, 30, 40)
"""Few numbers, as in practice: so a server that batches what is alike finds something alike."""
EDITED = 0.1
STRENGTH = 0.6
"""Of those that start from an image: it takes so much of their steps."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A request.

    Attributes:
        at: seconds from the beginning of the trace.
        steps: as asked for.
        guided: two rows, or one.
        size: pixels a side.
        edited: whether it starts from an image.

    """

    at: float
    steps: int
    guided: bool
    size: int
    edited: bool

    @property
    def evaluations(self) -> int:
        """How many steps it takes."""
        return min(int(self.steps * STRENGTH), self.steps) if self.edited else self.steps

    @property
    def rows(self) -> int:
        return 2 if self.guided else 1

    @property
    def alike(self) -> tuple[object, ...]:
        """Equal for requests that differ in prompt and seed only."""
        return self.steps, self.guided, self.size, self.edited


@dataclass(frozen=True, kw_only=True)
class Served:
    """How a request fared; seconds.

    Attributes:
        arrival: the request.
        wait: until it was begun.
        latency: until its image was there.
        alone: what it takes on an idle server.

    """

    arrival: Arrival
    wait: float
    latency: float
    alone: float


def trace(rate: float, seconds: float, sizes: Sequence[int], seed: int = 0) -> list[Arrival]:
    """Return arrivals of so many a second; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(rate * seconds)
    return [
        Arrival(
            at=float(at),
            steps=int(rng.choice(STEPS)),
            guided=bool(rng.random() < 0.5),
            size=int(rng.choice(np.asarray(sizes))),
            edited=bool(rng.random() < EDITED),
        )
        for at in np.sort(rng.uniform(0, seconds, count))
    ]


CLASSES: dict[str, Callable[[Arrival], bool]] = {
    "all": lambda _: True,
    "4 or 8 steps": lambda a: a.steps <= 8,
    "20 steps": lambda a: a.steps == 20,
    "30 or 40 steps": lambda a: a.steps >= 30,
}


def figures(served: Iterable[Served], kind: str = "all") -> dict[str, float]:
    """Return quantiles of latency and slowdown, and means, of a class of requests."""
    chosen = [one for one in served if CLASSES[kind](one.arrival)]
    latency = np.array([one.latency for one in chosen])
    slowdown = np.array([one.latency / one.alone for one in chosen])
    found = {"count": len(chosen), "wait": float(np.mean([one.wait for one in chosen])), "mean": float(latency.mean())}
    for name, values in (("latency", latency), ("slowdown", slowdown)):
        found |= {f"{name} p{q}": float(np.quantile(values, q / 100)) for q in (50, 90, 99)}
    return found


HEADER = (
    "| requests | latency p50, s | p90 | p99 | slowdown p50 | p90 | p99 | mean wait, s |",
    "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def rows(found: dict[str, float]) -> str:
    """Return figures as cells under :data:`HEADER`."""
    latency = " | ".join(f"{found[f'latency p{q}']:.3g}" for q in (50, 90, 99))
    slowdown = " | ".join(f"{found[f'slowdown p{q}']:.1f}" for q in (50, 90, 99))
    return f"| {found['count']:.0f} | {latency} | {slowdown} | {found['wait']:.3g} |"
