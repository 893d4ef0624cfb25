"""Kernels that were compiled at run time are kept beside the plan, and never loaded when they were changed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdengine.engines.cuda.gpu import Gpu
from sdengine.engines.trt.contexts import Contexts
from sdengine.runtime import Pipeline

from . import library
from .plans import with_plans

ADA = Gpu(generation="sm89", model="NVIDIA-Stand-in-4090")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = with_plans("sd1", tmp_path, engine="tensorrt-rtx")
    return next((path / "engines").rglob("denoiser*.plan"))


def contexts_of(plan: Path, name: str = "tensorrt_rtx", gpu: Gpu = ADA) -> Contexts:
    module: Any = __import__(name)
    return Contexts(module, library.Runtime(None).deserialize_cuda_engine(plan.read_bytes()), plan, gpu)


def kept(plan: Path) -> list[str]:
    return sorted(file.name for file in plan.parent.glob("*.kernels"))


def test_kernels_are_kept_for_this_gpu_and_loaded_again(plan: Path) -> None:
    contexts = contexts_of(plan)
    contexts.new().cache.kernels.add("one")
    contexts.keep()
    [first] = kept(plan)
    assert first.startswith(f"{plan.stem}.sm89-NVIDIA-Stand-in-4090.")
    again = contexts_of(plan)
    context = again.new()
    assert context.cache.kernels == {"one"} and again.notes == []
    written = plan.with_name(first).stat().st_ino
    again.keep()
    assert kept(plan) == [first]
    assert plan.with_name(first).stat().st_ino == written, "nothing new, nothing written"
    context.cache.kernels.add("two")
    again.keep()
    [second] = kept(plan)
    assert second != first, "the old file is replaced"
    other = contexts_of(plan, gpu=Gpu(generation="sm89", model="other"))
    assert other.new().cache.kernels == set()
    other.keep()
    assert len(kept(plan)) == 2


def test_a_changed_file_is_not_loaded(plan: Path) -> None:
    contexts = contexts_of(plan)
    contexts.new().cache.kernels.add("one")
    contexts.keep()
    [name] = kept(plan)
    file = plan.with_name(name)
    file.write_bytes(file.read_bytes().replace(b"one", b"two"))
    again = contexts_of(plan)
    assert again.new().cache.kernels == set()
    assert "was changed" in again.notes[0]


def test_a_file_of_another_environment_is_not_loaded(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts_of(plan).keep()
    monkeypatch.setattr(library.IRuntimeCache, "deserialize", lambda *_: False)
    assert "another driver or version" in contexts_of(plan).notes[0]


def test_a_bundle_that_cannot_be_written_to_stays_as_it_is(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, data: bytes) -> int:
        raise OSError("read-only file system")

    contexts = contexts_of(plan)
    monkeypatch.setattr(Path, "write_bytes", refuse)
    contexts.keep()
    assert "read-only" in contexts.notes[0] and kept(plan) == []


def test_a_library_without_a_cache_makes_plain_contexts(plan: Path) -> None:
    contexts = contexts_of(plan, "tensorrt")
    assert contexts.new().cache is None
    contexts.keep()
    assert kept(plan) == []


def test_a_pipeline_keeps_its_kernels_and_tells_of_changed_ones(bundle: Path, tmp_path: Path) -> None:
    path = with_plans("sd1", tmp_path, engine="tensorrt-rtx")
    settings: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 5, "output_type": "np"}
    with Pipeline.load(bundle, engine="onnxruntime", threads=1) as pipe:
        expected = pipe("a red cube", **settings).images
    for _ in range(2):
        with Pipeline.load(path, engine="tensorrt-rtx") as pipe:
            result = pipe("a red cube", **settings)
        assert np.array_equal(result.images, expected) and result.warnings == ()
    files = list((path / "engines").rglob("denoiser*.kernels"))
    assert len(files) == 1
    files[0].write_bytes(b"something else")
    with Pipeline.load(path, engine="tensorrt-rtx") as pipe:
        [warning] = pipe("a red cube", **settings).warnings
    assert warning.startswith("denoiser: ") and warning.endswith("was changed; kernels are compiled anew")
