"""What holds for every test: one thread for torch, no network by accident, GPU tests skipped with their reason."""

import getpass
import os
import shutil
import signal
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks are tiny: threads would only wait for one another
# Not the user's own; commands that tests start use it, too.
os.environ["SDENGINE_CACHE"] = str(Path(tempfile.gettempdir()) / f"sdengine-tests-{getpass.getuser()}-cache")
# Which engine is the fastest depends on the machine: commands that tests start take the one that was exported for.
os.environ["SDENGINE_AUTO"] = "exported"

# A shell starts what it runs in the background with SIGINT ignored, and commands that tests interrupt inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files of slow tests, lest one of two workers ends with such a file while the other has nothing to do.

    Skip what needs a GPU where there is none, nor a stand-in for its driver.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)
    if shutil.which("nvidia-smi") is not None or "SDENGINE_STANDIN" in os.environ:
        return
    for item in items:
        if item.get_closest_marker("gpu") is not None:
            item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU; nvidia-smi is not here"))
