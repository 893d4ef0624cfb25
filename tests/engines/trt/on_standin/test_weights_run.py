"""Plans that were stripped, can be refitted or stream their weights draw the right pictures, in recorded loops too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sdengine.engines.errors import UsageError
from sdengine.engines.trt import BuildOptions
from sdengine.engines.trt.plan_engine import PlanEngine
from sdengine.runtime import Pipeline

from .plans import with_plans

SETTINGS: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 5, "output_type": "np"}


def drawn(pipe: Pipeline) -> Any:
    return pipe("a red cube", **SETTINGS).images


def test_a_stripped_plan_gets_its_weights_when_it_is_opened(bundle: Path, tmp_path: Path) -> None:
    path = with_plans("sd1", tmp_path, options=BuildOptions(strip=True))
    with Pipeline.load(bundle, engine="onnxruntime", threads=1) as pipe:
        expected = drawn(pipe)
    with Pipeline.load(path, engine="tensorrt") as pipe:
        assert np.array_equal(drawn(pipe), expected)


@pytest.mark.parametrize("cuda_graph", ["step", "loop", "off"])
def test_a_refit_there_and_back_is_as_if_it_had_never_been(tmp_path: Path, cuda_graph: str) -> None:
    path = with_plans("sd1", tmp_path, options=BuildOptions(refit=True))
    stored = load_file(path / "components/unet/weights.safetensors")
    changes = {"conv_out.bias": stored["conv_out.bias"] + 0.1, "conv_in.weight": stored["conv_in.weight"] * 1.5}
    with Pipeline.load(path, engine="tensorrt", cuda_graph=cuda_graph) as pipe:
        for _ in range(2):
            before = drawn(pipe)
        with pipe.components.use("denoiser") as (denoiser,):
            assert isinstance(denoiser, PlanEngine)
            denoiser.refit(changes)
            changed = [drawn(pipe) for _ in range(3)]
            assert not np.array_equal(before, changed[0])
            assert np.array_equal(changed[0], changed[1]) and np.array_equal(changed[0], changed[2])
            denoiser.refit()
            for _ in range(3):
                assert np.array_equal(before, drawn(pipe))


def test_a_streaming_budget_is_set_when_a_plan_is_opened(bundle: Path, tmp_path: Path) -> None:
    path = with_plans("sd1", tmp_path, options=BuildOptions(weight_streaming=True))
    with (
        Pipeline.load(path, engine="tensorrt", weight_streaming_budget=0.25) as pipe,
        pipe.components.use("denoiser") as (denoiser,),
    ):
        assert isinstance(denoiser, PlanEngine)
        assert denoiser._engine.weight_streaming_budget_v2 == 2500
    with pytest.raises(UsageError, match="streams no weights; build it with --weight-streaming"):
        Pipeline.load(bundle, engine="tensorrt", weight_streaming_budget="auto")
