"""Kernels that were compiled at run time are cached for the user, and never loaded when they were changed."""

import hashlib
import os
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


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDENGINE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = with_plans("sd1", tmp_path, engine="tensorrt-rtx")
    return next((path / "engines").rglob("denoiser*.plan"))


def contexts_of(plan: Path, name: str = "tensorrt_rtx", gpu: Gpu = ADA) -> Contexts:
    module: Any = __import__(name)
    data = plan.read_bytes()
    engine = library.Runtime(None).deserialize_cuda_engine(data)
    return Contexts(module, engine, gpu, name=plan.stem, sha256=hashlib.sha256(data).hexdigest())


def kept() -> list[Path]:
    return sorted((Path(os.environ["SDENGINE_CACHE"]) / "kernels").glob("*"))


def test_kernels_are_kept_for_this_gpu_and_loaded_again(plan: Path) -> None:
    contexts = contexts_of(plan)
    contexts.new().cache.kernels.add("one")
    contexts.keep()
    [first] = kept()
    assert first.name.startswith(f"{plan.stem}.sm89-NVIDIA-Stand-in-4090.")
    assert not list(plan.parent.glob("*.kernels")), "the bundle stays as it is"
    again = contexts_of(plan)
    context = again.new()
    assert context.cache.kernels == {"one"} and again.notes == []
    written = first.stat().st_ino
    again.keep()
    assert kept() == [first]
    assert first.stat().st_ino == written, "nothing new, nothing written"
    context.cache.kernels.add("two")
    again.keep()
    assert kept() == [first] and first.stat().st_ino != written, "the old file is replaced"
    assert contexts_of(plan).new().cache.kernels == {"one", "two"}
    other = contexts_of(plan, gpu=Gpu(generation="sm89", model="other"))
    assert other.new().cache.kernels == set()
    other.keep()
    assert len(kept()) == 2


def test_a_changed_file_is_not_loaded(plan: Path) -> None:
    contexts = contexts_of(plan)
    contexts.new().cache.kernels.add("one")
    contexts.keep()
    [file] = kept()
    file.write_bytes(file.read_bytes().replace(b"one", b"two"))
    again = contexts_of(plan)
    assert again.new().cache.kernels == set()
    assert "was changed" in again.notes[0]


def test_a_file_of_another_environment_is_not_loaded(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contexts_of(plan).keep()
    monkeypatch.setattr(library.IRuntimeCache, "deserialize", lambda *_: False)
    assert "another driver or version" in contexts_of(plan).notes[0]


def test_others_do_not_choose_the_kernels(plan: Path) -> None:
    contexts = contexts_of(plan)
    contexts.new().cache.kernels.add("one")
    contexts.keep()
    [file] = kept()
    file.chmod(0o666)
    again = contexts_of(plan)
    assert again.new().cache.kernels == set()
    assert "can be written by other users" in again.notes[0]


def test_a_cache_that_cannot_be_written_is_a_note(plan: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    contexts = contexts_of(plan)
    contexts.keep()
    assert "kernels are compiled again" in contexts.notes[0]


def test_a_library_without_a_cache_makes_plain_contexts(plan: Path) -> None:
    contexts = contexts_of(plan, "tensorrt")
    assert contexts.new().cache is None
    contexts.keep()
    assert kept() == []


def test_a_pipeline_keeps_its_kernels_and_tells_of_changed_ones(bundle: Path, tmp_path: Path) -> None:
    path = with_plans("sd1", tmp_path, engine="tensorrt-rtx")
    settings: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 5, "output_type": "np"}
    with Pipeline.load(bundle, engine="onnxruntime", threads=1) as pipe:
        expected = pipe("a red cube", **settings).images
    for _ in range(2):
        with Pipeline.load(path, engine="tensorrt-rtx") as pipe:
            result = pipe("a red cube", **settings)
        assert np.array_equal(result.images, expected) and result.warnings == ()
    files = [file for file in kept() if file.name.startswith("denoiser")]
    assert len(files) == 1
    files[0].write_bytes(b"something else")
    with Pipeline.load(path, engine="tensorrt-rtx") as pipe:
        [warning] = pipe("a red cube", **settings).warnings
    assert warning.startswith("denoiser: ") and warning.endswith("was changed; kernels are compiled again")
