"""Memory of this process: resident, and on NVIDIA GPUs."""

import os
import sys
from pathlib import Path

from .nvidia_smi import nvidia_smi

__all__ = ["DeviceMemoryMonitor", "peak_memory", "resident_memory", "shared_out_memory"]

_STATUS = Path("/proc/self/status")
_ROLLUP = Path("/proc/self/smaps_rollup")
_NOT_LINUX = "this system has no /proc/self/status"


def resident_memory() -> float | str:
    """Return what is resident now, in MB of 10^6 bytes; a string is the reason why that is not known."""
    return _status("VmRSS")


def peak_memory() -> float | str:
    """Return the most that was ever resident, in MB; a string is the reason why that is not known."""
    return _status("VmHWM")


def shared_out_memory() -> float | str:
    """Return what is resident now, in MB, with pages that several processes share divided among them."""
    return _field(_ROLLUP, "Pss")


class DeviceMemoryMonitor:
    """Watches what this process uses on NVIDIA GPUs; make it before anything is opened there.

    Where nvidia-smi lists processes, it says what belongs to this one. In a container it lists none: then what the GPUs
    use more than at the beginning counts as this process's, which is right where no other process uses them.
    """

    def __init__(self) -> None:
        self._before = _in_use()
        self._most: float | None = None
        self._reason = "it was never measured"

    def look(self) -> None:
        """Note what is in use now."""
        used = _of_this_process()
        if isinstance(used, str) and not isinstance(self._before, str):
            now = _in_use()
            used = now if isinstance(now, str) else now - self._before
        if isinstance(used, str):
            self._reason = used
        else:
            self._most = used if self._most is None else max(self._most, used)

    @property
    def most(self) -> float | str:
        """The most that was seen, in MB; a string is the reason why that is not known."""
        return self._reason if self._most is None else self._most


def _of_this_process() -> float | str:
    listed = nvidia_smi("--query-compute-apps=pid,used_memory")
    if isinstance(listed, str):
        return listed
    own = [row[1:] for row in listed if row[0] == str(os.getpid())]
    return _sum_of(own) if own else "nvidia-smi lists no memory of this process"


def _in_use() -> float | str:
    listed = nvidia_smi("--query-gpu=memory.used")
    return listed if isinstance(listed, str) else _sum_of(listed)


def _sum_of(rows: list[list[str]]) -> float | str:
    try:
        return sum(float(row[0]) for row in rows) * 2**20 / 1e6
    except ValueError:
        return f"nvidia-smi does not report memory here ({rows[0][0]})"


def _status(field: str) -> float | str:
    return _field(_STATUS, field)


def _field(file: Path, field: str) -> float | str:
    if sys.platform != "linux":
        return _NOT_LINUX
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    return f"{file} has no {field}"
