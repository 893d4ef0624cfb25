"""Contenders draw in turns; what counts are medians and the spread."""

import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .compiled import PROMPT
from .contenders import Contender, Drawn
from .memory import PeakMemory
from .record import Record

__all__ = ["Race"]


class Race:
    """Opens contenders and lets them draw in turns.

    Args:
        record: where figures go.
        what: of the figures.
        device: ``cuda:N`` or ``cpu``.

    Attributes:
        open: contenders that draw, by name.

    """

    def __init__(self, record: Record, what: str, device: str) -> None:
        self._record = record
        self._what = what
        self._device = device
        self._serial = 0
        self._reference: Any = None
        self.open: dict[str, Contender] = {}

    def enter(self, name: str, open_contender: Callable[[], Contender]) -> bool:
        """Open a contender, draw its first image, and note what both took; False where it fails."""
        with self._record.check(f"{self._what}: a contender opens and draws", contender=name) as figures:
            with PeakMemory(self._device) as memory:
                contender = open_contender()
                first = contender.draw(PROMPT, 0, 1)
            second = contender.draw(PROMPT, 0, 1)
            figures |= {
                "open_s": round(contender.opened, 2),
                "first_image_s": round(first.seconds, 2),
                "second_image_s": round(second.seconds, 3),
                "memory_held_and_peak_mb": memory.found,
                "same_twice": bool(np.array_equal(first.images, second.images)),
            }
            if self._reference is None:
                self._reference = second.images
            figures["psnr_to_the_first_contender"] = _psnr(second.images, self._reference)
            Image.fromarray(second.images[0]).save(self._record.images / f"{self._what}-{name}.png")
            self.open[name] = contender
            return True
        return False

    def run(self, names: Sequence[str], *, rounds: int, batch: int = 1, keep: float = 15.0) -> None:
        """Let some of those that are open draw in turns.

        Args:
            names: who.
            rounds: how often, as far as time goes.
            batch: images of a call.
            keep: seconds to leave to the section.

        """
        contenders = [self.open[name] for name in names if name in self.open]
        drawn: dict[str, list[Drawn]] = {contender.name: [] for contender in contenders}
        if batch != 1:  # another shape: captured and compiled before it counts
            contenders = [c for c in contenders if all(self._draw(c, PROMPT, 0, batch) for _ in range(2))]
        slowest = 0.0
        try:
            for done in range(rounds):
                if done and self._record.left < keep + slowest:
                    break
                begin = time.perf_counter()
                turn = done % max(len(contenders), 1)
                for contender in contenders[turn:] + contenders[:turn]:
                    self._serial += 1  # a new prompt each time: some remember what their text encoders made of the last
                    if call := self._draw(contender, f"{PROMPT} {self._serial}", self._serial, batch):
                        drawn[contender.name].append(call)
                    else:
                        contenders.remove(contender)
                slowest = max(slowest, time.perf_counter() - begin)
        finally:  # also when the section's time is up
            for name, calls in drawn.items():
                if calls:
                    self._report(name, calls, batch)

    def _draw(self, contender: Contender, prompt: str, seed: int, batch: int) -> Drawn | None:
        """Let one draw; one that fails is in no race from then on."""
        try:
            return contender.draw(prompt, seed, batch)
        except Exception as error:
            traceback.print_exc()
            self._record.failure(f"{self._what}: a contender draws", error, contender=contender.name, batch=batch)
            self.open.pop(contender.name)
            return None

    def _report(self, name: str, calls: Sequence[Drawn], batch: int) -> None:
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
        while self.open:
            self.open.popitem()[1].close()


def _psnr(image: Any, reference: Any) -> float | str:
    if image.shape != reference.shape:
        return f"of another size: {image.shape}"
    error = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return "equal" if error == 0 else round(float(20 * np.log10(255) - 10 * np.log10(error)), 2)
