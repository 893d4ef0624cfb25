"""What is opened, drawn and closed many times takes no more memory in the end than after a few."""

import subprocess
import sys

import pytest

from ..bundles import bundle_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

MOST_GROWTH_MB = 24  # fragments of the heap: a tiny bundle's engines take some 60 MB

_PROGRAM = """
import ctypes, gc, sys
from pathlib import Path
from sdengine.runtime import Pipeline

path, engine, what = sys.argv[1:]

def resident_mb():
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what the allocator holds for later is not lost
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

def growth(work, times, warm_up):
    for i in range(warm_up):
        work(i)
    levels = [resident_mb()]
    for half in range(2):
        for i in range(times // 2):
            work(i)
        levels.append(resident_mb())
    return min(levels[1] - levels[0], levels[2] - levels[1])  # a leak grows in both, a heap that moved once in one

def settings(i):
    return {
        "num_inference_steps": 1 + i % 3,
        "height": (32, 64, 96)[i % 3],
        "width": (32, 64)[i % 2],
        "num_images_per_prompt": 1 + i % 2,
        "guidance_scale": (1.0, 7.5)[i % 2],
        "scheduler": ("ddim", "euler", "unipc")[i % 3],
    }

def opened(i):
    with Pipeline.load(path, engine=engine, precision="fp32") as pipeline:
        pipeline(f"a {i}", num_inference_steps=1, height=64, width=64)

if what == "pipelines":
    print(growth(opened, 50, 10))
else:
    with Pipeline.load(path, engine=engine, precision="fp32") as pipeline:
        print(growth(lambda i: pipeline(f"a {i % 300}", **settings(i)), 1000, 300))
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("what", ["pipelines", "requests"])
def test_memory_stays_on_a_plateau(what: str, engine: str) -> None:
    """Fifty pipelines, a thousand mixed requests; in a process of its own, whose memory nothing else has used."""
    command = [sys.executable, "-c", _PROGRAM, str(bundle_of("sd1")), engine, what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < MOST_GROWTH_MB
