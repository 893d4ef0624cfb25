"""How much of the host's memory is free, for this process."""

from pathlib import Path

__all__ = ["free_host_memory"]

_GROUP = Path("/sys/fs/cgroup")


def free_host_memory() -> int | None:
    """Return the bytes that can be had without swapping, within the limit of the control group; None if unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None  # not Linux
    try:
        most, used = (int((_GROUP / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):
        return free  # no limit
    return max(0, min(free, most - used))
