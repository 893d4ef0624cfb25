"""Plans run through CUDA's own pointers, graphs and error paths; ONNX Runtime does what the plan says."""

import threading
from pathlib import Path

import numpy as np
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.cuda.device import device_of
from sdengine.engines.engine import Array, run
from sdengine.engines.errors import BundleError, EngineError, UsageError
from sdengine.engines.ort.onnxruntime_cpu import OnnxRuntimeEngine
from sdengine.engines.spec import ComponentSpec
from sdengine.engines.trt.library import LIBRARIES
from sdengine.engines.trt.plan_engine import MOST_BOUND_CONTEXTS, PlanEngine
from sdengine.engines.trt.run_tensorrt import unavailable, version

from .counts import count, cuda
from .library import SCRATCH, VERSION
from .plans import with_plans


def opened(path: Path, component: str, **options: object) -> PlanEngine:
    return PlanEngine(LIBRARIES["tensorrt"], Bundle(path), component, precision="fp32", **options)  # type: ignore[arg-type]


def inputs_for(spec: ComponentSpec, seed: int = 0, **axes: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    lengths = {axis: length.opt for axis, length in spec.axes.items()} | {"h": 8, "w": 8} | axes
    found: dict[str, Array] = {}
    for tensor in spec.inputs:
        shape = tensor.resolve(lengths)
        if tensor.dtype == "int64":
            found[tensor.name] = np.zeros(shape, np.int64)
        else:
            found[tensor.name] = rng.standard_normal(shape).astype(tensor.dtype)
    return found


def expected(path: Path, component: str, inputs: dict[str, Array]) -> dict[str, Array]:
    engine = OnnxRuntimeEngine(Bundle(path), component, precision="fp32", threads=1)
    return run(engine, inputs)


def same(actual: dict[str, Array], wanted: dict[str, Array]) -> bool:
    return all(np.array_equal(actual[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("component", ["text_encoder", "conditioner", "denoiser", "vae_decoder", "vae_encoder"])
def test_every_component_gives_what_its_graph_gives(bundle: Path, component: str) -> None:
    engine = opened(bundle, component)
    inputs = inputs_for(engine.spec)
    wanted = expected(bundle, component, inputs)
    outputs = {t.name: np.empty_like(wanted[t.name]) for t in engine.spec.outputs}
    once = engine.prepare(inputs, outputs)
    for _ in range(3):  # plain, captured, replayed
        for array in outputs.values():
            array.fill(7)
        once()
        assert same(outputs, wanted)
    assert engine.device == "cuda:0 (NVIDIA-Stand-in-4090)"
    engine.close()
    engine.close()


def test_what_the_buffers_hold_at_each_run_counts(bundle: Path) -> None:
    engine = opened(bundle, "denoiser")
    inputs = inputs_for(engine.spec)
    outputs = {"next_state": np.empty_like(inputs["state"])}
    once = engine.prepare(inputs, outputs)
    for seed in range(3):
        changed = inputs_for(engine.spec, seed)
        for name, array in inputs.items():
            array[...] = changed[name]
        once()
        assert same(outputs, expected(bundle, "denoiser", changed))
    engine.close()


def test_a_graph_is_captured_once_for_each_set_of_shapes(bundle: Path) -> None:
    engine = opened(bundle, "denoiser")
    captures, launches = count("captures"), count("launches")
    for rows in (1, 2, 1, 2):
        run(engine, inputs_for(engine.spec, R=rows))
    assert count("captures") == captures + 2 and count("launches") == launches + 2
    engine.close()
    engine = opened(bundle, "denoiser", cuda_graph="off")
    for _ in range(3):
        run(engine, inputs_for(engine.spec))
    assert count("captures") == captures + 2
    engine.close()


def test_buffers_are_bounded_and_reused(bundle: Path) -> None:
    engine = opened(bundle, "conditioner")
    for tokens in range(70, 70 + MOST_BOUND_CONTEXTS):
        run(engine, inputs_for(engine.spec, T=tokens))
    made = count("allocated")
    for tokens in range(70, 70 + MOST_BOUND_CONTEXTS):
        run(engine, inputs_for(engine.spec, T=tokens))
    assert count("allocated") == made, "shapes that were seen allocate nothing"

    def many_shapes() -> int:
        for tokens in (*range(20, 26), *range(70, 70 + MOST_BOUND_CONTEXTS)):
            inputs = inputs_for(engine.spec, T=tokens)
            assert same(run(engine, inputs), expected(bundle, "conditioner", inputs))
        return count("allocated")

    many_shapes()
    made = many_shapes()
    assert many_shapes() == made, "what evicted shapes have given back is used again"
    engine.close()


def test_scratch_is_shared_and_a_moved_one_is_captured_anew(bundle: Path) -> None:
    small, large = opened(bundle, "conditioner"), opened(bundle, "denoiser")
    inputs = inputs_for(small.spec)
    for _ in range(2):
        run(small, inputs)
    captures = count("captures")
    alive = count("device_alive")
    run(large, inputs_for(large.spec))
    tensors = len(large.spec.inputs) + len(large.spec.outputs)
    assert count("device_alive") <= alive + tensors, "the scratch area is replaced, not added"
    device = device_of(0)
    assert device.scratch(1)[1] == SCRATCH["denoiser"]
    device.release()
    for _ in range(2):
        assert same(run(small, inputs), expected(bundle, "conditioner", inputs))
    assert count("captures") == captures + 1
    small.close()
    large.close()


def test_the_profile_is_chosen_by_fit(bundle: Path) -> None:
    engine = opened(bundle, "vae_decoder")
    for width in (8, 12):
        inputs = inputs_for(engine.spec, w=width)
        assert same(run(engine, inputs), expected(bundle, "vae_decoder", inputs))
    with pytest.raises(UsageError, match=r"no profile of the plan holds .*w 10; there are: .*w 8 to 8; .*w 12 to 12"):
        run(engine, inputs_for(engine.spec, w=10))
    engine.close()


def test_two_threads_share_the_stream(bundle: Path) -> None:
    engines = [opened(bundle, "denoiser"), opened(bundle, "conditioner")]
    failures: list[str] = []

    def work(engine: PlanEngine) -> None:
        for seed in range(3):
            inputs = inputs_for(engine.spec, seed)
            if not same(run(engine, inputs), expected(bundle, engine.spec.name, inputs)):
                failures.append(f"{engine.spec.name} {seed}")

    threads = [threading.Thread(target=work, args=(engine,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for engine in engines:
        engine.close()


def test_running_out_of_memory_says_how_much_and_leaves_nothing(bundle: Path) -> None:
    engine = opened(bundle, "vae_decoder")
    cuda.standin_limit(30_000)
    try:
        with pytest.raises(
            EngineError, match=r"cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY \(\d+ MiB were requested\)"
        ):
            run(engine, inputs_for(engine.spec))
    finally:
        cuda.standin_limit(1 << 34)
    inputs = inputs_for(engine.spec)
    assert same(run(engine, inputs), expected(bundle, "vae_decoder", inputs))
    engine.close()


def test_a_closed_engine_says_so(bundle: Path) -> None:
    engine = opened(bundle, "conditioner")
    inputs = inputs_for(engine.spec)
    outputs: dict[str, Array] = {k: np.empty_like(v) for k, v in expected(bundle, "conditioner", inputs).items()}
    once = engine.prepare(inputs, outputs)
    engine.close()
    with pytest.raises(EngineError, match="conditioner: this engine has been closed"):
        once()
    with pytest.raises(EngineError, match="has been closed"):
        engine.prepare(inputs, outputs)


@pytest.mark.parametrize(
    ("target", "built_with", "message"),
    [
        ("sm86-NVIDIA-A10", VERSION, r"built for sm86-NVIDIA-A10 .*here is sm89 .*sdengine build"),
        ("sm89-NVIDIA-Stand-in-4090", "98.0", r"tensorrt 98\.0; here is .*tensorrt 99\.1\.0; run `sdengine build"),
    ],
)
def test_a_plan_for_elsewhere_is_refused_before_it_is_read(
    tmp_path: Path, target: str, built_with: str, message: str
) -> None:
    path = with_plans("sd1", tmp_path, target=target, version=built_with)
    for plan in (path / "engines").rglob("*.plan"):
        plan.chmod(0o000)
    with pytest.raises(EngineError, match=message):
        opened(path, "conditioner")


def test_a_changed_plan_is_refused(tmp_path: Path) -> None:
    path = with_plans("sd1", tmp_path)
    for plan in (path / "engines").rglob("conditioner*.plan"):
        plan.write_bytes(plan.read_bytes().replace(b"conditioner", b"conditionar"))
    with pytest.raises(BundleError, match="SHA-256"):
        opened(path, "conditioner")


def test_a_gpu_that_is_not_there(bundle: Path) -> None:
    with pytest.raises(EngineError, match="no GPU 3"):
        opened(bundle, "conditioner", device="cuda:3")


def test_what_the_ladder_asks() -> None:
    assert unavailable() is None
    assert version() == VERSION
