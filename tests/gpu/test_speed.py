"""Reports what a step costs here and in torch, eager and compiled; asserts nothing about time."""

from typing import Any

import pytest
from sdengine.runtime import Pipeline

from .conftest import STANDIN
from .setting import Setting

pytestmark = pytest.mark.gpu


def measured(setting: Setting, pipe: Pipeline) -> dict[str, float]:
    """Return the least time of a picture and of its steps over some runs, in milliseconds."""
    height, width = setting.sizes[0]
    settings = {"height": height, "width": width, "num_inference_steps": 20, "seed": 0}
    results = [pipe("a red cube", **settings).timings_ms for _ in range(4)][1:]  # the first one warms up
    return {"total_ms": min(r.total for r in results), "denoise_ms": min(r.denoise for r in results)}


@pytest.mark.parametrize("cuda_graph", ["step", "loop", "off"])
def test_speed_of_plans(setting: Setting, report: Any, cuda_graph: str) -> None:
    with setting.pipeline(cuda_graph=cuda_graph) as pipe:
        figures = measured(setting, pipe)
    report("speed", engine=setting.engine, precision=setting.precision, cuda_graph=cuda_graph, **figures)
    assert figures["total_ms"] > 0


@pytest.mark.skipif(STANDIN, reason="torch would run on the CPU")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compile"])
def test_speed_of_torch(setting: Setting, report: Any, compiled: bool) -> None:
    import torch

    with setting.pipeline(engine="torch", device="cuda") as pipe:
        if compiled:
            with pipe.components.use("denoiser") as (denoiser,):
                module: Any = denoiser
                module._module = torch.compile(module._module, mode="reduce-overhead")
        figures = measured(setting, pipe)
    report("speed", engine="torch.compile" if compiled else "torch", precision=setting.precision, **figures)
    assert figures["total_ms"] > 0
