"""Products as convolutions, and one model for optimised and for other sizes: on real compiled models."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.engine import Array, Engine, run
from sdengine.engines.ov import compiled_variants, openvino_cpu
from sdengine.engines.ov.pointwise_products import convolve_products
from sdengine.engines.ov.size_variants import with_static_branches
from sdengine.engines.registry import open_engine
from sdengine.export import export_bundle

from ...bundles import checkpoint_of, controlnets_of

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")

needs_bfloat16 = pytest.mark.skipif(
    openvino_cpu.preferred(["bf16"]) != "bf16", reason="the CPU has no instructions for bfloat16"
)

RNG = np.random.default_rng(0)


def _random(*shape: int) -> Array:
    return RNG.standard_normal(shape, np.float32)


def _kinds(model: Any) -> set[str]:
    return {node.get_type_name() for node in model.get_ordered_ops()}


def _compiled(model: Any) -> Any:
    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _product(
    *, length: int = 256, width: int = 640, transposed: bool = True, stored: Any = np.float32, after: str = ""
) -> Any:
    x = ops.parameter([-1, length, width], np.float32, name="x")
    weights = ops.constant((_random(704, width) if transposed else _random(width, 704)).astype(stored))
    given = weights if stored == np.float32 else ops.convert(weights, "f32")
    results = [ops.matmul(x, given, False, transposed)]
    if "b" in after:
        results.append(ops.add(ops.constant(_random(704)), results[-1]))
    if "g" in after:
        results.append(ops.gelu(results[-1], "erf"))
    return openvino.Model([ops.relu(result) for result in (results if "t" in after else results[-1:])], [x], "product")


@pytest.mark.parametrize("after", ["", "b", "g", "bg", "t", "bt", "bgt"])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("known", [False, True])
def test_a_product_is_a_convolution_of_one_pixel(after: str, rows: int, known: bool) -> None:
    """Alone, with bias (b) and GELU (g) after it, and where each of the results is needed too (t)."""
    model = _product(after=after)
    if known:
        model.reshape([rows, 256, 640])
    x = _random(rows, 256, 640)
    expected = _compiled(model.clone())(x)
    kept = convolve_products(model)
    assert "MatMul" not in _kinds(model)
    actual = _compiled(model)(x)
    assert len(kept) == 1
    for i in range(len(model.outputs)):
        np.testing.assert_allclose(actual[i], expected[i], rtol=1e-5, atol=1e-4)


def test_open_lengths_are_convolved_too() -> None:
    model = _product(length=-1)
    x = _random(1, 77, 640)
    expected = _compiled(model.clone())(x)[0]
    kept = convolve_products(model)
    np.testing.assert_allclose(_compiled(model)(x)[0], expected, rtol=1e-4, atol=1e-3)
    assert len(kept) == 1


@pytest.mark.parametrize("other", [{"length": 255}, {"width": 639}, {"transposed": False}, {"stored": np.float16}])
def test_other_products_are_left_alone(other: dict[str, Any]) -> None:
    model = _product(**other)
    assert convolve_products(model) == []
    assert "MatMul" in _kinds(model)


def test_weights_are_not_copied() -> None:
    model = _product()
    (weights,) = convolve_products(model)
    (kernel,) = (
        n for n in model.get_ordered_ops() if n.get_type_name() == "Constant" and len(n.get_output_shape(0)) == 4
    )
    assert kernel.data.ctypes.data == weights.data.ctypes.data


def _two_inputs() -> Any:
    """Each of its open lengths is told by another input."""
    x, y = (ops.parameter([3, -1], np.float32, name=name) for name in "xy")
    for port in (x, y):
        port.output(0).set_names({port.get_friendly_name()})
    result = ops.matmul(x, y, True, False)
    result.output(0).set_names({"z"})
    summed = ops.reduce_sum(result, ops.constant(np.int64(0)), False)
    summed.output(0).set_names({"summed"})
    return openvino.Model([ops.result(result.output(0)), ops.result(summed.output(0))], [x, y], "two inputs")


_CHOICES = [{"x": (3, 4), "y": (3, 5)}, {"x": (3, 7), "y": (3, 5)}]


@pytest.mark.parametrize("lengths", [(4, 5), (7, 5), (4, 6), (7, 4), (2, 5), (1, 1)])
@pytest.mark.parametrize("count", [1, 2])
def test_all_branches_do_the_same(lengths: tuple[int, int], count: int) -> None:
    model = with_static_branches(_two_inputs(), _CHOICES[:count])
    x, y = (_random(3, length) for length in lengths)
    results = _compiled(model)({"x": x, "y": y})
    np.testing.assert_allclose(results["z"], x.T @ y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results["summed"], (x.T @ y).sum(0), rtol=1e-5, atol=1e-6)


def test_a_branch_knows_its_lengths_and_the_last_none() -> None:
    model, known = with_static_branches(_two_inputs(), _CHOICES), []
    for _ in _CHOICES:
        (branches,) = (node for node in model.get_ordered_ops() if node.get_type_name() == "If")
        then, model = branches.get_function(0), branches.get_function(1)
        known.append([list(result.get_output_shape(0)) for result in then.get_results()])
    assert known == [[[4, 5], [5]], [[7, 5], [5]]]
    assert all(result.get_output_partial_shape(0).is_dynamic for result in model.get_results())


def test_a_model_without_open_lengths_is_left_as_it_is() -> None:
    model = _two_inputs()
    model.reshape({"x": [3, 4], "y": [3, 5]})
    assert with_static_branches(model, _CHOICES) is model


_MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from sdengine.engines.ov.openvino_library import core, library
from sdengine.engines.ov.pointwise_products import convolve_products
from sdengine.engines.ov.size_variants import with_static_branches

ops = __import__("openvino.opset13").opset13
def private():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
x = y = ops.parameter([-1, 256, 2048], library().Type.bf16, name="x")
y.output(0).set_names({"x"})
for _ in range(16):
    weights = np.random.default_rng(0).standard_normal((2048, 2048), np.float32) / 45
    y = ops.matmul(y, ops.constant(weights, dtype=library().Type.bf16), False, True)
model = library().Model([y], [x], "deep")
kept = convolve_products(model)
assert len(kept) == 16
if sys.argv[1] == "both":
    model = with_static_branches(model, [{"x": (2, 256, 2048)}, {"x": (1, 256, 2048)}])
before = private()
request = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"}).create_infer_request()
for rows in (2, 1):
    request.set_tensor("x", library().Tensor(library().Type.bf16, library().Shape([rows, 256, 2048])))
    request.infer()
print(private() - before)
"""


@needs_bfloat16
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_branches_share_packed_weights() -> None:
    """128 MiB of them: were they packed twice, it would be as much again."""

    def used(which: str) -> float:
        command = [sys.executable, "-W", "ignore", "-c", _MEMORY, which]
        return float(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)

    alone, both = used("open"), used("both")
    assert 100 < alone < 220
    assert both < alone + 64


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Of one size, in bfloat16, with a ControlNet."""
    return export_bundle(
        checkpoint_of("sd1"),
        tmp_path_factory.mktemp("tuned") / "b",
        controlnets=controlnets_of("sd1", 1),
        engines=["openvino"],
        precision="bf16",
        sizes="128x64",
        verify="off",
    )


def _inputs(engine: Engine, **lengths: int) -> dict[str, Array]:
    axes = {axis: allowed.opt for axis, allowed in engine.spec.axes.items()} | lengths
    rng = np.random.default_rng(1)
    found = {t.name: rng.standard_normal(t.resolve(axes)).astype(t.dtype) for t in engine.spec.inputs}
    for name, value in (("row_sample", 0), ("rescale", 0), ("timestep", 500), ("input_scale", 1), ("mask", 1)):
        if name in found:
            found[name][:] = value
    return found


@needs_bfloat16
@pytest.mark.parametrize("component", ["denoiser", "controlnet"])
def test_a_large_bfloat16_network_has_static_branches_and_a_dynamic_one(
    bundle: Bundle, component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same results as when it was open only: at its lengths, at others, and at its own again."""
    monkeypatch.setattr("sdengine.engines.bundle.compiled_cache.LIMIT", 0)
    monkeypatch.setattr("sdengine.engines.ov.pointwise_products._WIDTH", 16)
    monkeypatch.setattr("sdengine.engines.ov.pointwise_products._LENGTH", 16)
    engine = open_engine(bundle, component, engine="openvino", precision="bf16").engine
    monkeypatch.setattr(compiled_variants, "_EVERY_STEP", ())
    plain = open_engine(bundle, component, engine="openvino", precision="bf16").engine
    assert [kinds.count("If") for kinds in _kinds_run(engine)] == [0, 1]
    assert [kinds.count("If") for kinds in _kinds_run(plain)] == [0, 0]
    for lengths in ({}, {"R": 1}, {"R": 1, "T": 154}, {"T": 154}, {}):
        inputs = _inputs(engine, **lengths)
        expected, actual = run(plain, inputs), run(engine, inputs)
        for name, value in expected.items():
            error = float(np.sqrt(np.mean((actual[name] - value) ** 2)))
            assert error < 0.01 * float(np.ptp(value)), (name, lengths)  # 40 dB, as bfloat16 rounds other sums


def _kinds_run(engine: Any) -> list[list[str]]:
    """The types of what each of an engine's models consists of."""
    models = engine._variant(None).models
    return [
        [op.get_rt_info()["layerType"].astype(str) for op in m.get_runtime_model().get_ordered_ops()] for m in models
    ]


@needs_bfloat16
def test_text_encoders_and_small_networks_have_one_branch(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    small = open_engine(bundle, "denoiser", engine="openvino", precision="bf16").engine
    monkeypatch.setattr("sdengine.engines.bundle.compiled_cache.LIMIT", 0)
    encoder = open_engine(bundle, "text_encoder", engine="openvino", precision="bf16").engine
    assert not any("If" in kinds for engine in (small, encoder) for kinds in _kinds_run(engine))


@needs_bfloat16
def test_weights_that_must_be_converted_are_not_doubled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A float32 graph computed in bfloat16: what the compiler makes of its constants, it would make twice."""
    bundle = export_bundle(checkpoint_of("sd1"), tmp_path / "b", engines=["openvino"], sizes="64x64", verify="off")
    monkeypatch.setattr("sdengine.engines.bundle.compiled_cache.LIMIT", 0)
    engine = open_engine(bundle, "denoiser", engine="openvino", precision="bf16").engine
    assert not any("If" in kinds for kinds in _kinds_run(engine))


@needs_bfloat16
def test_where_openvino_cannot_tune_a_network_that_is_told(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has been seen to fail where a map is of one pixel."""

    def failing(*_: object) -> Any:
        raise RuntimeError("Exception from plugin.cpp:1:\nCannot get descriptor for edge\n")

    monkeypatch.setattr("sdengine.engines.bundle.compiled_cache.LIMIT", 0)
    monkeypatch.setattr(compiled_variants, "with_static_branches", failing)
    engine = open_engine(bundle, "denoiser", engine="openvino", precision="bf16").engine
    assert engine.notes == [
        "denoiser is not optimised for any sizes, as openvino cannot: Cannot get descriptor for edge",
    ]
    assert np.isfinite(run(engine, _inputs(engine))["next_state"]).all()
