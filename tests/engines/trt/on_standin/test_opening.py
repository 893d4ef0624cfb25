"""What a plan was built to be decides how it is opened and captured; what is free on the GPU limits a build."""

from pathlib import Path

import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.cuda.gpu import gpu_here
from sdengine.engines.engine import run
from sdengine.engines.errors import UsageError
from sdengine.engines.trt import BuildOptions, memory_estimates
from sdengine.engines.trt.build_plans import _workspace
from sdengine.engines.trt.library import LIBRARIES
from sdengine.engines.trt.plan_engine import PlanEngine

from . import library
from .counts import count, cuda
from .plans import with_plans
from .test_plans_run import expected, inputs_for, same


def opened(path: Path, **options: object) -> PlanEngine:
    return PlanEngine(LIBRARIES["tensorrt"], Bundle(path), "conditioner", precision="fp32", **options)  # type: ignore[arg-type]


def test_a_plan_that_streams_its_weights_is_never_captured(tmp_path: Path) -> None:
    path = with_plans("sd1", tmp_path, options=BuildOptions(weight_streaming=True))
    with pytest.raises(UsageError, match="conditioner: a plan that streams its weights cannot be captured"):
        opened(path, cuda_graph="loop")
    engine = opened(path, cuda_graph="step", weight_streaming_budget=0.5)
    captures, inputs = count("captures"), inputs_for(engine.spec)
    for _ in range(3):
        assert same(run(engine, inputs), expected(path, "conditioner", inputs))
    assert count("captures") == captures
    engine.close()


@pytest.mark.parametrize("compatible", [True, False])
def test_host_code_is_allowed_for_plans_that_bring_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compatible: bool
) -> None:
    allowed: list[bool] = []
    deserialize = library.Runtime.deserialize_cuda_engine

    def watched(self: library.Runtime, data: bytes) -> library.Engine | None:
        allowed.append(getattr(self, "engine_host_code_allowed", False))
        return deserialize(self, data)

    monkeypatch.setattr(library.Runtime, "deserialize_cuda_engine", watched)
    opened(with_plans("sd1", tmp_path, options=BuildOptions(version_compatible=compatible))).close()
    assert allowed == [compatible]


def test_the_workspace_is_what_is_free_on_the_gpu_that_is_built_for() -> None:
    said: list[str] = []
    gpu, options = gpu_here(), BuildOptions()
    assert gpu is not None
    cuda.standin_limit(3 << 30)
    try:
        assert _workspace(options, ("sm89",), gpu, said.append) == 3 << 30
        assert said == ["workspace: 3072 MiB, what is free on the NVIDIA-Stand-in-4090 now"]
        assert _workspace(options, ("sm86",), gpu, said.append) is None, "this GPU's memory says nothing of others"
        assert _workspace(BuildOptions(workspace=1 << 21), ("sm89",), gpu, said.append) == 1 << 21
        assert _workspace(options, ("sm89",), None, said.append) is None
    finally:
        cuda.standin_limit(1 << 34)
    assert len(said) == 1


def test_an_open_plan_tells_the_scratch_memory_of_each_profile(tmp_path: Path) -> None:
    [found] = memory_estimates(Bundle(with_plans("sd1", tmp_path, sizes=((64, 64), (96, 64)))))
    plans = {plan.component: plan for plan in found.plans}
    assert all(plan.unopened is None for plan in plans.values())
    by_profile = plans["denoiser"].scratch_by_profile
    assert by_profile == (by_profile[0], int(by_profile[0]) // 2) and len(plans["text_encoder"].scratch_by_profile) == 1
    assert found.unknown_scratch == () and found.scratch == max(plan.scratch or 0 for plan in found.plans)
    [other] = memory_estimates(Bundle(with_plans("sd1", tmp_path / "other", target="sm80-NVIDIA-A100")))
    assert all("here is sm89" in str(plan.unopened) for plan in other.plans)
    assert len(other.unknown_scratch) == len(other.plans), "nothing was written down, and nothing could be asked"
