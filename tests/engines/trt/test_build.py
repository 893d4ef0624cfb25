"""Plans are found again by content, replaced as a whole, and refused in the user's terms."""

import resource
import threading
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from sdengine.engines.bundle.bundle import MANIFEST, Bundle, file_sha256
from sdengine.engines.bundle.manifest import FileRecord
from sdengine.engines.errors import BundleError, EngineError, EngineUnavailableError, SdengineError, UsageError
from sdengine.engines.trt import BuildOptions, build_engines
from sdengine.engines.trt.library import LIBRARIES
from sdengine.engines.trt.plan_record import read_record

from .bundles import copy_of

pytest.importorskip("tensorrt_rtx")

ADA = BuildOptions(targets=("sm89",), optimization_level=0)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copy_of("sd1", tmp_path)


def build(path: Path, options: BuildOptions = ADA, **settings: object) -> list[tuple[str, bool]]:
    plans = build_engines(path, "tensorrt-rtx", options=options, components=["conditioner"], **settings)  # type: ignore[arg-type]
    return [(plan.file, plan.reused) for plan in plans]


def test_a_plan_that_fits_is_kept_and_one_that_does_not_is_replaced(bundle: Path) -> None:
    said: list[str] = []
    [(first, reused)] = build(bundle, report=said.append)
    assert not reused and any("compiling the fp16 graph for sm89" in line for line in said)
    made = (bundle / first).stat().st_mtime_ns
    assert build(bundle) == [(first, True)]
    assert (bundle / first).stat().st_mtime_ns == made
    [(second, reused)] = build(bundle, BuildOptions(targets=("sm89",), optimization_level=1))
    assert not reused and second != first and not (bundle / first).exists()
    opened = Bundle(bundle)
    assert [built.file for built in opened.manifest.built] == [second]
    assert not [name for name in opened.manifest.files if name.startswith(first.removesuffix(".plan"))]


def test_the_record_tells_what_was_built(bundle: Path) -> None:
    [(file, _)] = build(bundle)
    opened = Bundle(bundle)
    [entry] = opened.manifest.built
    assert (entry.engine, entry.component, entry.precision, entry.target) == (
        "tensorrt-rtx",
        "conditioner",
        "fp16",
        "sm89",
    )
    record = read_record(opened, file)
    assert record.plan_bytes == (bundle / file).stat().st_size == opened.manifest.files[file].bytes
    assert record.layers["fp16"]["matrix_multiply"] > 0
    assert record.activation_bytes is not None and record.activation_bytes > 0
    assert record.weight_bytes is not None and record.weight_bytes > 0
    assert record.warnings == []


def test_other_targets_live_beside_each_other(bundle: Path) -> None:
    build(bundle)
    build(bundle, BuildOptions(targets=("sm120", "sm86")))
    targets = [built.target for built in Bundle(bundle).manifest.built]
    assert targets == ["sm89", "sm86+sm120"]
    assert build(bundle)[0][1] and build(bundle, BuildOptions(targets=("sm86", "sm120")))[0][1]


def test_a_changed_plan_is_never_reused(bundle: Path) -> None:
    [(file, _)] = build(bundle)
    data = bytearray((bundle / file).read_bytes())
    data[-1] ^= 1
    (bundle / file).write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256"):
        build(bundle)


def test_two_builds_at_once_end_with_one_plan(bundle: Path) -> None:
    results: list[tuple[str, bool]] = []
    threads = [threading.Thread(target=lambda: results.extend(build(bundle))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reused for _, reused in results) == [False, True]
    assert len(Bundle(bundle).manifest.built) == 1


def test_stopping_leaves_nothing_behind(bundle: Path) -> None:
    before = (bundle / MANIFEST).read_bytes()

    def stop(component: str, phase: str, done: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(bundle, progress=stop)
    assert (bundle / MANIFEST).read_bytes() == before
    assert not [file for file in (bundle / "engines").rglob("*") if file.is_file()]


@pytest.mark.parametrize("before_the_manifest", [True, False])
def test_a_full_disk_is_said_and_leaves_nothing_behind(bundle: Path, before_the_manifest: bool) -> None:
    """Whether the plan is too large, or the manifest that is written after it."""
    before = (bundle / MANIFEST).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if before_the_manifest else len(before) - 1, hard))
    try:
        with pytest.raises(SdengineError, match=r"plans could not be written to .*: File too large"):
            build(bundle)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (bundle / MANIFEST).read_bytes() == before
    assert not [file for file in (bundle / "engines").rglob("*.plan") if file.is_file()]


def test_progress_counts_up(bundle: Path) -> None:
    seen: list[tuple[str, str, int, int]] = []
    build(bundle, progress=lambda *step: seen.append(step))
    assert {component for component, *_ in seen} == {"conditioner"}
    assert all(0 <= done <= steps for _, _, done, steps in seen)
    assert any(done == steps > 1 for _, _, done, steps in seen)


def _rewrite_graph(path: Path, component: str, change: object) -> None:
    """Change a graph and what the manifest says about it, as a faulty exporter would."""
    opened = Bundle(path)
    name = opened.component(component).graphs["fp16"].file
    model = onnx.load(path / name, load_external_data=False)
    change(model)  # type: ignore[operator]
    (path / name).unlink()
    onnx.save(model, path / name)
    record = FileRecord(sha256=file_sha256(path / name), bytes=(path / name).stat().st_size)
    files = opened.manifest.files | {name: record}
    (path / MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(opened.manifest, files=files)))


def test_a_refused_operator_is_named(bundle: Path) -> None:
    def unknown(model: onnx.ModelProto) -> None:
        next(n for n in model.graph.node if n.op_type == "MatMul").op_type = "NoSuchOperator"

    _rewrite_graph(bundle, "conditioner", unknown)
    with pytest.raises(EngineError, match=r"conditioner: .*operator NoSuchOperator \(node MatMul_\d+\).*Export"):
        build(bundle)


def test_weights_elsewhere_are_refused(bundle: Path) -> None:
    def elsewhere(model: onnx.ModelProto) -> None:
        for entry in model.graph.initializer[0].external_data:
            entry.value = "nowhere.safetensors" if entry.key == "location" else entry.value

    _rewrite_graph(bundle, "conditioner", elsewhere)
    with pytest.raises(BundleError, match=r"conditioner.fp16.onnx names weights outside weights.safetensors"):
        build(bundle)


def test_mixed_types_are_refused_not_converted(bundle: Path) -> None:
    def mix(model: onnx.ModelProto) -> None:
        """Leave out the cast of the text, so that float32 meets float16."""
        cast = next(n for n in model.graph.node if n.op_type == "Cast")
        for node in model.graph.node:
            node.input[:] = [cast.input[0] if i == cast.output[0] else i for i in node.input]

    _rewrite_graph(bundle, "conditioner", mix)
    with pytest.raises(EngineError, match=r"conditioner: .*MatMul.*never converted silently") as raised:
        build(bundle)
    assert "cudaError" not in str(raised.value), "what follows from having no GPU is not told as the cause"


def test_a_graph_that_does_not_fit_its_profile_is_an_error(bundle: Path) -> None:
    def fix_rows(model: onnx.ModelProto) -> None:
        dim = model.graph.input[0].type.tensor_type.shape.dim[0]
        dim.Clear()
        dim.dim_value = 3

    _rewrite_graph(bundle, "conditioner", fix_rows)
    with pytest.raises(EngineError, match="conditioner: tensorrt-rtx cannot compile it"):
        build(bundle)


def test_too_small_a_workspace_says_what_was_allowed_and_for_which_shapes(bundle: Path) -> None:
    options = BuildOptions(targets=("sm89",), optimization_level=0, workspace=1 << 20)
    with pytest.raises(EngineError, match=r"vae_decoder: .*\(1 MiB were allowed\) for shapes up to latent \[2, 4, "):
        build_engines(bundle, "tensorrt-rtx", options=options, components=["vae_decoder"])


@pytest.mark.parametrize("option", ["refit", "strip"])
def test_without_a_gpu_refittable_plans_cannot_be_built(bundle: Path, option: str) -> None:
    options = BuildOptions(targets=("sm89",), optimization_level=0, **{option: True})
    with pytest.raises(EngineError, match=r"conditioner: .*only where there is a GPU: .* without --refit and --strip"):
        build(bundle, options)
    assert Bundle(bundle).manifest.built == []
    assert not (bundle / "engines").exists(), "a failed build leaves nothing behind"


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        ("tensorrt-rxt", {}, "did you mean 'tensorrt-rtx'"),
        ("tensorrt-rtx", {"options": BuildOptions()}, "no GPU here to build for; name targets"),
        ("tensorrt-rtx", {"options": BuildOptions(targets=("sm90",))}, "sm90 and sm100 need tensorrt"),
        ("tensorrt-rtx", {"options": BuildOptions(targets=("sm98",))}, "did you mean"),
        ("tensorrt-rtx", {"options": BuildOptions(targets=("sm89",), timing_cache=True)}, "has no timing_cache"),
        ("tensorrt", {"options": ADA}, "leave targets out"),
        ("tensorrt", {}, "needs the GPU it builds for"),
        ("tensorrt-rtx", {"options": ADA, "components": ["denoser"]}, "did you mean 'denoiser'"),
    ],
)
def test_what_cannot_be_had_is_told(bundle: Path, engine: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_engines(bundle, engine, **settings)  # type: ignore[arg-type]
    assert not (bundle / "engines").exists()


def test_options_out_of_range_are_told() -> None:
    with pytest.raises(UsageError, match="1 MiB"):
        BuildOptions(workspace=4)
    with pytest.raises(UsageError, match="0 to 5"):
        BuildOptions(optimization_level=6)


def test_a_missing_library_says_how_to_get_it() -> None:
    with pytest.raises(EngineUnavailableError, match=r'pip install .*\[tensorrt\]"'):
        LIBRARIES["tensorrt"].load()


def test_options_reach_the_compiler(bundle: Path) -> None:
    plain = (bundle / build(bundle)[0][0]).read_bytes()
    options = BuildOptions(targets=("sm89",), optimization_level=0, weight_streaming=True, workspace=1 << 28)
    [(streamed, _)] = build(bundle, options)
    assert not np.array_equal(np.frombuffer(plain, np.uint8), np.fromfile(bundle / streamed, np.uint8))
