"""What is opened, drawn and closed many times takes no more memory in the end than after a few."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sdengine.runtime import Pipeline

from ..bundles import bundle_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

MOST_GROWTH_MB = 24  # what allocators keep, not what is lost: a tiny bundle's engines take some 60 MB


def _resident_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def _growth(work: Callable[[int], None], times: int, warm_up: int) -> float:
    for i in range(warm_up):
        work(i)
    before = _resident_mb()
    for i in range(times):
        work(i)
    return _resident_mb() - before


def _settings(i: int) -> dict[str, Any]:
    size = (32, 64, 96)[i % 3]
    return {
        "num_inference_steps": 1 + i % 3,
        "height": size,
        "width": (32, 64)[i % 2],
        "num_images_per_prompt": 1 + i % 2,
        "guidance_scale": (1.0, 7.5)[i % 2],
        "scheduler": ("ddim", "euler", "unipc")[i % 3],
    }


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_fifty_pipelines(engine: str) -> None:
    def work(i: int) -> None:
        with Pipeline.load(bundle_of("sd1"), engine=engine, precision="fp32") as pipeline:
            pipeline(f"a {i}", num_inference_steps=1, height=64, width=64)

    assert _growth(work, 50, 10) < MOST_GROWTH_MB


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_thousand_requests(engine: str) -> None:
    with Pipeline.load(bundle_of("sd1"), engine=engine, precision="fp32") as pipeline:
        assert _growth(lambda i: pipeline(f"a {i % 300}", **_settings(i)) and None, 1000, 300) < MOST_GROWTH_MB
