"""Weights are put in by name, over the bundle's own; a budget for streaming them is set in bytes."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.cuda.gpu import free_memory
from sdengine.engines.engine import run
from sdengine.engines.errors import EngineError, UsageError
from sdengine.engines.parity import sample
from sdengine.engines.registry import open_engine
from sdengine.engines.trt import BuildOptions
from sdengine.engines.trt.refit import PlanWeights
from sdengine.engines.trt.streaming import set_streaming_budget

from . import library
from .counts import cuda
from .plans import with_plans

NAME = "mid_block.resnets.0.conv1.weight"


def engine_of(path: Path) -> Any:
    plan = next((path / "engines").rglob("denoiser*.plan"))
    return library.Runtime(None).deserialize_cuda_engine(plan.read_bytes())


def weights_of(path: Path, engine: Any, *, changeable: bool = True) -> PlanWeights:
    import tensorrt

    return PlanWeights(tensorrt, engine, Bundle(path), "denoiser", "fp32", changeable=changeable)


@pytest.fixture
def stripped(tmp_path: Path) -> Path:
    return with_plans("sd1", tmp_path, options=BuildOptions(strip=True))


@pytest.fixture
def refittable(tmp_path: Path) -> Path:
    return with_plans("sd1", tmp_path, options=BuildOptions(refit=True))


def test_a_stripped_plan_gets_the_bundle_s_weights(stripped: Path) -> None:
    engine = engine_of(stripped)
    stored = load_file(stripped / "components/unet/weights.safetensors")
    assert NAME in engine.missing
    weights = weights_of(stripped, engine, changeable=False)
    weights.refit(1)
    assert not engine.missing
    assert all(np.array_equal(engine.weights[name], stored[name]) for name in engine.weights)
    with pytest.raises(UsageError, match="build it with --refit"):
        weights.refit(1, {NAME: stored[NAME] * 2})


def test_changes_go_over_the_bundle_s_weights_and_leave_no_trace(refittable: Path) -> None:
    engine = engine_of(refittable)
    stored = load_file(refittable / "components/unet/weights.safetensors")
    weights = weights_of(refittable, engine)
    other = "conv_out.bias"
    weights.refit(1, {NAME: stored[NAME] * 2, other: stored[other] + 1})
    assert np.array_equal(engine.weights[NAME], stored[NAME] * 2)
    assert np.array_equal(engine.weights[other], stored[other] + 1)
    weights.refit(1, {other: stored[other] + 2})
    assert np.array_equal(engine.weights[NAME], stored[NAME]), "the first change is gone"
    assert np.array_equal(engine.weights[other], stored[other] + 2)
    assert engine.refits == 2


def test_what_does_not_fit_is_told(refittable: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(refittable)
    weights = weights_of(refittable, engine)
    with pytest.raises(UsageError, match=f"denoiser has no weight 'mid_block.*'; did you mean '{NAME}'"):
        weights.refit(1, {NAME.replace("weight", "weigth"): np.zeros(1, np.float32)})
    with pytest.raises(UsageError, match=r"conv_out\.bias takes 16 contiguous bytes, not 12"):
        weights.refit(1, {"conv_out.bias": np.zeros(3, np.float32)})
    assert engine.refits == 0
    with pytest.raises(UsageError, match="build it with --refit"):
        weights_of(bundle, engine_of(bundle)).refit(1)
    monkeypatch.setattr(library.Refitter, "set_named_weights", lambda *_: False)
    with pytest.raises(EngineError, match="denoiser: the plan refuses the weight"):
        weights.refit(1)
    monkeypatch.setattr(library.Refitter, "set_named_weights", lambda *_: True)
    monkeypatch.setattr(library.Refitter, "get_missing_weights", lambda *_: ["unknown.weight"])
    with pytest.raises(EngineError, match=r"to go without unknown\.weight \(1 in all\)"):
        weights.refit(1)


@pytest.mark.parametrize(
    ("budget", "wanted"), [(0, 0), (4000, 4000), (99_999, 10_000), (0.25, 2500), (1.0, 10_000), ("auto", 2500)]
)
def test_a_budget_is_bytes_a_share_or_the_library_s_choice(tmp_path: Path, budget: Any, wanted: int) -> None:
    engine = engine_of(with_plans("sd1", tmp_path, options=BuildOptions(weight_streaming=True)))
    assert set_streaming_budget(engine, budget, component="denoiser") == wanted
    assert engine.weight_streaming_budget_v2 == wanted


def test_a_budget_that_cannot_be_is_told(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(UsageError, match="streams no weights; build it with --weight-streaming"):
        set_streaming_budget(engine_of(bundle), "auto", component="denoiser")
    engine = engine_of(with_plans("sd1", tmp_path, options=BuildOptions(weight_streaming=True)))
    for budget in (-1, 1.5, "half"):
        with pytest.raises(UsageError, match="nor a share from"):
            set_streaming_budget(engine, budget, component="denoiser")


def test_free_memory_is_asked_of_the_driver() -> None:
    cuda.standin_limit(123 << 20)
    try:
        assert free_memory() == 123 << 20
    finally:
        cuda.standin_limit(1 << 34)


def test_a_bundle_with_changes_opens_a_plan_with_them(refittable: Path) -> None:
    plain = Bundle(refittable)
    stored = load_file(plain.file(plain.manifest.networks["unet"].weights))
    changed = plain.with_changes({"unet": {NAME: stored[NAME] * np.float32(1.5)}})

    def outputs(bundle: Bundle, engine: str) -> Any:
        with closing(open_engine(bundle, "denoiser", engine=engine, precision="fp32").engine) as opened:
            return run(opened, sample(opened.spec, 0)[1])["next_state"]

    first, other = outputs(plain, "tensorrt"), outputs(changed, "tensorrt")
    assert np.array_equal(outputs(plain, "tensorrt"), first)
    assert np.array_equal(other, outputs(changed, "onnxruntime")) and not np.array_equal(first, other)
    with closing(open_engine(changed, "conditioner", engine="tensorrt", precision="fp32").engine) as opened:
        assert opened.name == "tensorrt", "the change is of no weight that it uses"


def test_a_plan_that_cannot_be_refitted_refuses_changes(tmp_path: Path) -> None:
    plain = Bundle(with_plans("sd1", tmp_path))
    stored = load_file(plain.file(plain.manifest.networks["unet"].weights))
    changed = plain.with_changes({"unet": {NAME: stored[NAME] * np.float32(1.5)}})
    with pytest.raises(UsageError, match="denoiser: the plan's weights cannot be changed; build it with --refit"):
        open_engine(changed, "denoiser", engine="tensorrt", precision="fp32")
