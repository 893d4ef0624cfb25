"""Runs NVIDIA's own tool to query the GPUs."""

import shutil
import subprocess

__all__ = ["nvidia_smi"]


def nvidia_smi(query: str) -> list[list[str]] | str:
    """Return the rows that answer a query; a string is the reason why there are none.

    Args:
        query: such as ``--query-gpu=name,driver_version``.

    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "there is no NVIDIA driver here (no nvidia-smi)"
    try:
        done = subprocess.run(
            [tool, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi does not answer: {error}"
    if done.returncode:
        return f"nvidia-smi failed: {(done.stdout + done.stderr).strip() or done.returncode}"
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
