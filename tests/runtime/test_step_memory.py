"""Steps take no memory: what a picture needs is there before the first one."""

import tracemalloc

import pytest
from sdengine.runtime import Pipeline, Request

from ..bundles import bundle_of

WARM, STEPS = 5, 45
PER_STEP = 400
"""Bytes. The time of a step is noted, and here what is held: numbers and their places in lists, 100 to 200 bytes. The
smallest array of a step, its latents, has 1024."""


@pytest.mark.parametrize("scheduler", ["DPMSolverMultistepScheduler", "EulerAncestralDiscreteScheduler"])
def test_memory_does_not_grow_with_steps(scheduler: str) -> None:
    held: list[int] = []

    def look(done: int, total: int) -> None:
        if tracemalloc.is_tracing():
            held.append(tracemalloc.get_traced_memory()[0])

    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime") as pipe:
        request = Request(
            prompt="a red cube", height=64, width=64, num_inference_steps=STEPS, scheduler=scheduler, seed=1
        )
        pipe.generate(request)  # what the first picture makes for all others
        tracemalloc.start()
        try:
            pipe.generate(request, progress=look)
        finally:
            tracemalloc.stop()
    assert len(held) == STEPS + 1
    assert (held[-1] - held[WARM]) / (STEPS - WARM) < PER_STEP
