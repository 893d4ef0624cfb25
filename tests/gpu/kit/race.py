"""Contenders draw in turns; what counts are medians and the spread."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .contenders import Contender, Drawn
from .memory import PeakMemory
from .record import Record

__all__ = ["Race"]

_PROMPT = "a red fox in the snow, photographed at dawn"


class Race:
    """Opens contenders and lets them draw in turns.

    Args:
        record: where figures go.
        what: of the figures.
        device: ``cuda:N`` or ``cpu``.

    """

    def __init__(self, record: Record, what: str, device: str) -> None:
        self._record = record
        self._what = what
        self._device = device
        self._open: dict[str, Contender] = {}
        self._serial = 0
        self.reference: Any = None

    def enter(self, open_contender: Callable[[], Contender]) -> Contender | None:
        """Open a contender, draw its first image, and note what both took; None where it fails."""
        with self._record.check(f"{self._what}: a contender opens and draws") as figures:
            with PeakMemory(self._device) as memory:
                contender = open_contender()
                first = contender.draw(_PROMPT, 0, 1)
            second = contender.draw(_PROMPT, 0, 1)
            figures |= {
                "contender": contender.name,
                "open_s": round(contender.opened, 2),
                "first_image_s": round(first.seconds, 2),
                "second_image_s": round(second.seconds, 3),
                "memory_held_and_peak_mb": memory.found,
                "same_twice": bool(np.array_equal(first.images, second.images)),
            }
            if self.reference is None:
                self.reference = second.images
            figures["psnr_to_the_first_contender"] = _psnr(second.images, self.reference)
            Image.fromarray(second.images[0]).save(self._record.images / f"{self._what}-{contender.name}.png")
            self._open[contender.name] = contender
            return contender
        return None

    def run(self, names: Sequence[str], *, rounds: int, batch: int = 1, keep: float = 15.0) -> None:
        """Let some of those that are open draw in turns.

        Args:
            names: who.
            rounds: how often, as far as time goes.
            batch: images of a call.
            keep: seconds to leave to the section.

        """
        contenders = [self._open[name] for name in names if name in self._open]
        drawn: dict[str, list[Drawn]] = {contender.name: [] for contender in contenders}
        if batch != 1:
            for contender in contenders:  # another shape: captured and compiled before it counts
                for _ in range(2):
                    contender.draw(_PROMPT, 0, batch)
        slowest = 0.0
        for done in range(rounds):
            if done and self._record.left < keep + slowest:
                break
            begin = time.perf_counter()
            for contender in contenders[done % len(contenders) :] + contenders[: done % len(contenders)]:
                self._serial += 1  # a new prompt each time: some remember what their text encoders made of the last
                drawn[contender.name].append(contender.draw(f"{_PROMPT} {self._serial}", self._serial, batch))
            slowest = max(slowest, time.perf_counter() - begin)
        for name, calls in drawn.items():
            times = [call.seconds for call in calls]
            stages = {stage: statistics.median(call.stages[stage] for call in calls) for stage in calls[0].stages}
            self._record.figure(
                self._what,
                contender=name,
                batch=batch,
                runs=len(times),
                median_s=round(statistics.median(times), 4),
                least_s=round(min(times), 4),
                most_s=round(max(times), 4),
                stages_ms={stage: round(seconds * 1e3, 2) for stage, seconds in stages.items()},
            )

    def close(self) -> None:
        """Close all."""
        while self._open:
            self._open.popitem()[1].close()


def _psnr(image: Any, reference: Any) -> float | str:
    if image.shape != reference.shape:
        return f"of another size: {image.shape}"
    error = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return "equal" if error == 0 else round(float(20 * np.log10(255) - 10 * np.log10(error)), 2)
