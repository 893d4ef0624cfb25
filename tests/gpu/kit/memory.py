"""What a GPU holds, looked at while something runs."""

import contextlib
import threading
from types import TracebackType
from typing import Any

__all__ = ["PeakMemory"]


class PeakMemory:
    """Watches a GPU's memory; ``found`` then has what is held more than before, and the most that was, in MB.

    It is what the driver says for the whole GPU, looked at every 20 ms: a shorter peak can be missed.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self._done = threading.Event()
        self._most = 0.0
        self.found: Any = "not a GPU"

    def _used(self) -> float:
        import torch

        free, total = torch.cuda.mem_get_info(self._device)
        return (total - free) / 1e6

    def __enter__(self) -> "PeakMemory":
        if self._device != "cpu":
            self._before = self._used()
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            with contextlib.suppress(Exception):
                self._most = max(self._most, self._used())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device != "cpu":
            self._done.set()
            self._thread.join()
            now = self._used()
            self.found = [round(now - self._before), round(max(self._most, now) - self._before)]
