"""How busy other processes keep the CPUs meanwhile: figures of a busy machine are no figures of the machine."""

import os
import time

__all__ = ["OtherWork"]


class OtherWork:
    """Counts from its making on."""

    def __init__(self) -> None:
        self._begin, self._busy, self._own = time.monotonic(), _busy(), time.process_time()

    def share(self) -> float:
        """Return the share of all CPUs' time that went to other processes, or was taken by other machines."""
        passed = (time.monotonic() - self._begin) * (os.cpu_count() or 1)
        return max(0.0, (_busy() - self._busy) - (time.process_time() - self._own)) / passed


def _busy() -> float:
    with open("/proc/stat", encoding="ascii") as lines:
        user, nice, system, _idle, _waiting, irq, soft, stolen = map(int, lines.readline().split()[1:9])
    return (user + nice + system + irq + soft + stolen) / os.sysconf("SC_CLK_TCK")
