"""The engine's own code with the CPU's provider in the place of CUDA's: device memory of the stand-in is the host's."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.cuda.device import device_of
from sdengine.engines.engine import run
from sdengine.engines.errors import EngineError, EngineUnavailableError, UsageError
from sdengine.engines.ort import onnxruntime_cuda
from sdengine.engines.ort.onnxruntime_cuda import OnnxRuntimeCudaEngine
from sdengine.engines.registry import open_engine
from sdengine.runtime import Pipeline

from .test_plans_run import expected, inputs_for, same


class InOrder:
    """A session on the CPU that runs after what the stream was given before, as one on a GPU does."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_with_iobinding(self, binding: Any, how: Any) -> None:
        device = device_of(0)
        device.synchronize()
        self._session.run_with_iobinding(binding, how)
        device.release()


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the CPU in the GPU's place."""
    opened = onnxruntime_cuda.open_session
    monkeypatch.setattr(onnxruntime_cuda, "open_session", lambda *args, **options: InOrder(opened(*args, **options)))
    monkeypatch.setattr(onnxruntime_cuda, "_PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_cuda, "_DEVICE", "cpu")
    monkeypatch.setattr(onnxruntime_cuda, "_provider_options", lambda number, stream, limit: {})


def opened(path: Path, component: str = "denoiser") -> OnnxRuntimeCudaEngine:
    return OnnxRuntimeCudaEngine(Bundle(path), component, precision="fp32")


@pytest.mark.usefixtures("cpu")
@pytest.mark.parametrize("component", ["text_encoder", "conditioner", "denoiser", "vae_decoder"])
def test_host_buffers_go_there_and_back(bundle: Path, component: str) -> None:
    engine = opened(bundle, component)
    for seed in range(2):
        inputs = inputs_for(engine.spec, seed)
        assert same(run(engine, inputs), expected(bundle, component, inputs))
    assert engine.device == "cuda:0 (NVIDIA-Stand-in-4090)"
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="has been closed"):
        engine.prepare({}, {})


@pytest.mark.usefixtures("cpu")
def test_device_buffers_are_used_where_they_are(bundle: Path) -> None:
    engine = opened(bundle)
    inputs = inputs_for(engine.spec)
    memory = engine.memory
    there = {name: memory.zeros(array.shape, array.dtype) for name, array in inputs.items()}
    outputs = {"next_state": memory.zeros(inputs["state"].shape, np.float32)}
    once = engine.prepare(there, outputs)
    for seed in range(2):
        values = inputs_for(engine.spec, seed)
        for name, array in values.items():
            memory.copy(there[name], array)
        once()
        assert np.array_equal(memory.read(outputs["next_state"]), expected(bundle, "denoiser", values)["next_state"])
    del there, outputs, once
    engine.close()


@pytest.mark.usefixtures("cpu")
def test_a_picture_is_the_same_and_plans_share_the_stream(bundle: Path) -> None:
    settings = {"height": 64, "width": 96, "num_inference_steps": 3, "seed": 5, "output_type": "np"}
    with Pipeline.load(bundle, engine="onnxruntime", threads=1) as pipe:
        wanted = pipe("a red cube", **settings)
    with Pipeline.load(bundle, engine="onnxruntime-cuda", precision="fp32", device="cuda:0") as pipe:
        found = pipe("a red cube", **settings)
        device = device_of(0)
        assert device.memory is pipe.components.memory_of("denoiser")
        device.release()
    # Releases differ in how they fuse the two graphs: 1.24 rounds them apart by 2e-6.
    assert np.allclose(found.images, wanted.images, rtol=0, atol=2e-5)
    assert set(found.engines.values()) == {"onnxruntime-cuda"}


@pytest.mark.usefixtures("cpu")
def test_recorded_loops_are_refused(bundle: Path) -> None:
    engine = opened(bundle, "conditioner")
    inputs = inputs_for(engine.spec)
    outputs = {t.name: np.empty(t.resolve(engine.spec.axes_of({k: v.shape for k, v in inputs.items()})), t.dtype)
               for t in engine.spec.outputs}  # fmt: skip
    once = engine.prepare(inputs, outputs)
    device = device_of(0)
    device.capturing = []
    with pytest.raises(EngineError, match="--cuda-graph step"):
        once()
    device.capturing = None
    device.release()
    engine.close()


def test_without_the_provider_it_is_unavailable(bundle: Path) -> None:
    assert "has no CUDAExecutionProvider" in str(onnxruntime_cuda.unavailable())
    with pytest.raises(EngineUnavailableError, match=r'pip install .*\[cuda\]"'):
        open_engine(Bundle(bundle), "conditioner", engine="onnxruntime-cuda")


def test_a_session_that_fell_back_to_the_cpu_is_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime leaves out a provider whose libraries do not load, and says so only in its log."""
    monkeypatch.setattr(onnxruntime_cuda, "unavailable", lambda: None)
    monkeypatch.setattr(onnxruntime_cuda, "_provider_options", lambda number, stream, limit: {})
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(EngineUnavailableError, match="cuDNN"):
        opened(bundle)


@pytest.mark.usefixtures("cpu")
def test_work_on_the_cpu_is_refused_and_shapes_are_not(bundle: Path) -> None:
    engine = opened(bundle)
    session = engine._session
    placed = session.get_provider_graph_assignment_info()
    assert {part.ep_name for part in placed} == {"CPUExecutionProvider"}
    elsewhere = SimpleNamespace(
        get_providers=lambda: ["CUDAExecutionProvider"], get_provider_graph_assignment_info=lambda: placed
    )
    engine.close()
    onnxruntime_cuda._PROVIDER = "CUDAExecutionProvider"  # undone with the fixture
    with pytest.raises(EngineError, match=r"no CUDA kernel for \d+ "):
        onnxruntime_cuda._check_placement("denoiser", elsewhere)
    shapes = [part for part in placed if all(node.op_type in ("Shape", "Concat") for node in part.get_nodes())]
    assert shapes
    elsewhere.get_provider_graph_assignment_info = lambda: shapes
    onnxruntime_cuda._check_placement("denoiser", elsewhere)


def test_options_are_those_of_the_provider() -> None:
    options = onnxruntime_cuda._provider_options(1, 4096, 1 << 30)
    assert options["device_id"] == "1" and options["user_compute_stream"] == "4096"
    assert options["gpu_mem_limit"] == str(1 << 30) and options["arena_extend_strategy"] == "kSameAsRequested"
    assert all(isinstance(value, str) for value in options.values())
    assert hasattr(onnxruntime.RunOptions(), "add_run_config_entry")


@pytest.mark.usefixtures("cpu")
def test_a_limit_reaches_the_provider(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(onnxruntime_cuda, "_provider_options", lambda number, stream, limit: limits.append(limit) or {})
    with Pipeline.load(bundle, engine="onnxruntime-cuda", precision="fp32", memory_limit=123 << 20):
        pass
    assert len(limits) >= 3 and set(limits) == {123 << 20}


@pytest.mark.usefixtures("cpu")
def test_a_recorded_loop_is_not_asked_of_it(bundle: Path) -> None:
    settings: dict[str, Any] = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 5, "output_type": "np"}
    with pytest.raises(UsageError, match="onnxruntime-cuda has no option cuda_graph; it is for tensorrt"):
        Pipeline.load(bundle, engine="onnxruntime-cuda", precision="fp32", cuda_graph="loop")
    plain = bundle.parent / "without-plans"
    shutil.copytree(bundle, plain, ignore=shutil.ignore_patterns("engines"))
    manifest = msgspec.structs.replace(Bundle(bundle).manifest, built=[])
    kept = {name: file for name, file in manifest.files.items() if not name.startswith("engines/")}
    (plain / "manifest.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(manifest, files=kept)))
    with Pipeline.load(bundle, engine="onnxruntime", threads=1) as pipe:
        wanted = pipe("a", **settings).images
    with Pipeline.load(plain, device="cuda", precision="fp32", cuda_graph="loop") as pipe:
        for _ in range(3):
            result = pipe("a", **settings)
            assert np.array_equal(result.images, wanted)
    assert "cuda_graph is of no use to onnxruntime-cuda, which runs denoiser" in result.warnings
    assert len(result.timings_ms.steps) > 1, "step by step"
