"""Memory of this process: resident, and on NVIDIA GPUs."""

import os
import sys
from pathlib import Path

from .nvidia_smi import nvidia_smi

__all__ = ["device_memory", "peak_memory", "resident_memory"]

_STATUS = Path("/proc/self/status")
_NOT_LINUX = "this system has no /proc/self/status"


def resident_memory() -> float | str:
    """Return what is resident now, in MB of 10^6 bytes; a string is the reason why that is not known."""
    return _status("VmRSS")


def peak_memory() -> float | str:
    """Return the most that was ever resident, in MB; a string is the reason why that is not known."""
    return _status("VmHWM")


def device_memory() -> float | str:
    """Return what this process uses on NVIDIA GPUs, in MB; a string is the reason why that is not known."""
    listed = nvidia_smi("--query-compute-apps=pid,used_memory")
    if isinstance(listed, str):
        return listed
    used = [row[1] for row in listed if row[0] == str(os.getpid())]
    if not used:
        return "nvidia-smi lists no memory of this process"
    try:
        return sum(float(value) for value in used) * 2**20 / 1e6
    except ValueError:
        return f"nvidia-smi does not tell the memory of a process here ({used[0]})"


def _status(field: str) -> float | str:
    if sys.platform != "linux":
        return _NOT_LINUX
    for line in _STATUS.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    return f"{_STATUS} has no {field}"
