"""How far a percentile could have moved by chance: a bootstrap over processes and the calls in them.

Calls of one process resemble one another more than those of two (the memory layout, the clock of the machine), and so
do the steps of one call. Resampling single samples would treat them as independent, and underestimate the noise. So
whole rounds are sampled with replacement, then whole calls in each round (Davison and Hinkley, *Bootstrap Methods and
their Application*, 1997, section 3.8). Resampling k rounds shows (k - 1) / k of the variance between them; the noise is
scaled up for that. One round shows nothing of the variance between rounds; with a single sample the noise is not known.
"""

import math

import numpy as np
from numpy.typing import NDArray

from .figure import QUANTILES, Figure

__all__ = ["CONFIDENCE", "change_and_noise"]

CONFIDENCE = 0.95
"""Share of the resampled changes between the two edges that define the noise."""

_RESAMPLES = 1000

_TINY = 1e-6
"""Replaces zero in ratios and logarithms."""

F64 = NDArray[np.float64]


def change_and_noise(old: Figure, new: Figure) -> dict[str, tuple[float, float | None]]:
    """Return for each percentile the relative change from old to new, and its noise.

    The noise is the distance from the change to the edge of the resampled changes that is nearer to no change: a change
    that is larger than its noise has both edges on one side of it. None where there is only one sample.
    """
    edge = (1 - CONFIDENCE) / 2
    resampled = _log_percentiles(new, seed=1) - _log_percentiles(old, seed=0)
    edges = np.quantile(resampled, [edge, 1 - edge], axis=1)
    few = min(len(old.rounds), len(new.rounds))
    stretch = math.sqrt(few / (few - 1)) if few > 1 else 1.0
    known = min(old.samples.size, new.samples.size) > 1
    changes = {}
    for i, name in enumerate(QUANTILES):
        change = math.log(max(getattr(new, name), _TINY) / max(getattr(old, name), _TINY))
        noise = stretch * max(change - edges[0, i] if change > 0 else edges[1, i] - change, 0.0)
        # Back from logarithms on the side of the change, so that the two can be compared.
        changes[name] = (math.expm1(change), abs(math.expm1(math.copysign(noise, change))) if known else None)
    return changes


def _log_percentiles(figure: Figure, *, seed: int) -> F64:
    """Return logarithms of the percentiles of resampled figures, [percentiles, resamples]."""
    samples = np.maximum(np.asarray(figure.rounds, np.float64), _TINY).reshape(len(figure.rounds), -1, figure.per_run)
    rounds, runs, _ = samples.shape
    rng = np.random.default_rng(seed)
    sampled_rounds = rng.integers(rounds, size=(_RESAMPLES, rounds, 1))
    sampled_runs = rng.integers(runs, size=(_RESAMPLES, rounds, runs))
    resampled = samples[sampled_rounds, sampled_runs].reshape(_RESAMPLES, -1)
    percentiles: F64 = np.log(np.percentile(resampled, list(QUANTILES.values()), axis=1))
    return percentiles
