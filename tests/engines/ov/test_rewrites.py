"""What is done to a graph before OpenVINO compiles it, on real graphs and real compiled models."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.engine import Array, run
from sdengine.engines.errors import BundleError
from sdengine.engines.ov import openvino_cpu
from sdengine.engines.ov.split_geglu import halve_gated_projections
from sdengine.engines.ov.upsample_after import convolve_before_doubling, phase_kernels
from sdengine.engines.registry import open_engine
from sdengine.export import export_bundle
from sdengine.runtime import Pipeline

from ...bundles import bundle_of, checkpoint_of, with_one_size

openvino = pytest.importorskip("openvino")
ops = pytest.importorskip("openvino.opset13")

RNG = np.random.default_rng(0)


def _random(*shape: int) -> Array:
    return RNG.standard_normal(shape, np.float32)


def _result(model: Any, **inputs: Array) -> Array:
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled(inputs)[0])


def _gated(*, transposed: bool, dynamic: bool) -> Any:
    x = ops.parameter([-1, -1, 8] if dynamic else [2, 5, 8], np.float32, name="x")
    weights = ops.constant(_random(12, 8) if transposed else _random(8, 12))
    wide = ops.add(ops.matmul(x, weights, False, transposed), ops.constant(_random(12)))
    halves = ops.split(wide, ops.constant(np.int64(-1)), 2)
    return openvino.Model([ops.multiply(halves.output(0), ops.gelu(halves.output(1), "erf"))], [x], "gated")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_gated_projection_is_halved(transposed: bool, dynamic: bool) -> None:
    model = _gated(transposed=transposed, dynamic=dynamic)
    x = _random(2, 5, 8)
    expected = _result(model.clone(), x=x)
    whole = halve_gated_projections(model)
    assert len(whole) == 1
    assert "Split" not in {node.get_type_name() for node in model.get_ordered_ops()}
    np.testing.assert_allclose(_result(model, x=x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["transposed", "converted", "by a node"])
def test_halves_of_weights_are_not_copied(how: str) -> None:
    weights = ops.constant(_random(12, 8).astype(np.float16 if how == "converted" else np.float32))
    x = ops.parameter([2, 5, 8], np.float32, name="x")
    given = weights
    if how == "converted":
        given = ops.convert(weights, "f32")
    elif how == "by a node":
        given = ops.transpose(weights, ops.constant(np.array([1, 0], np.int64)))
    wide = ops.add(ops.matmul(x, given, False, how != "by a node"), ops.constant(_random(12)))
    halves = ops.split(wide, ops.constant(np.int64(-1)), 2)
    model = openvino.Model([ops.add(halves.output(0), ops.gelu(halves.output(1), "erf"))], [x], "gated")
    pixels = _random(2, 5, 8)
    expected = _result(model.clone(), x=pixels)
    whole = halve_gated_projections(model)
    assert len(whole) == 1
    places = sorted(
        node.data.ctypes.data - weights.data.ctypes.data
        for node in model.get_ordered_ops()
        if node.get_type_name() == "Constant" and list(node.get_output_shape(0)) == [6, 8]
    )
    assert places == [0, weights.data.nbytes // 2]
    np.testing.assert_allclose(_result(model, x=pixels), expected, rtol=1e-5, atol=1e-5)


def test_a_split_of_something_else_is_left_alone() -> None:
    x = ops.parameter([2, 8], np.float32, name="x")
    halves = ops.split(x, ops.constant(np.int64(1)), 2)
    model = openvino.Model([ops.add(halves.output(0), halves.output(1))], [x], "plain")
    assert halve_gated_projections(model) == []


def test_a_projection_that_is_used_whole_too_is_left_alone() -> None:
    x = ops.parameter([2, 8], np.float32, name="x")
    wide = ops.add(ops.matmul(x, ops.constant(_random(8, 12)), False, False), ops.constant(_random(12)))
    halves = ops.split(wide, ops.constant(np.int64(1)), 2)
    model = openvino.Model([ops.add(halves.output(0), halves.output(1)), ops.relu(wide)], [x], "used twice")
    assert halve_gated_projections(model) == []


def _doubling(size: tuple[int, int], *, scale: tuple[int, int] = (2, 2), stride: int = 1) -> Any:
    h, w = size
    x = ops.parameter([2, 3, h, w], np.float32, name="x")
    target = ops.constant(np.array([max(h, 3) * scale[0], max(w, 3) * scale[1]], np.int64))
    axes = ops.constant(np.array([2, 3], np.int64))
    large = ops.interpolate(
        x, target, "nearest", "sizes", coordinate_transformation_mode="asymmetric", nearest_mode="floor", axes=axes
    )
    y = ops.convolution(large, ops.constant(_random(4, 3, 3, 3)), [stride] * 2, [1, 1], [1, 1], [1, 1])
    return openvino.Model([ops.relu(y)], [x], "doubling")


def test_conversions_around_doubling_are_seen_through() -> None:
    """As in bfloat16 graphs, which double in float32."""
    x = ops.parameter([2, 3, 4, 5], np.float32, name="x")
    wide = ops.convert(ops.convert(x, "bf16"), "f32")
    axes, target = ops.constant(np.array([2, 3], np.int64)), ops.constant(np.array([8, 10], np.int64))
    large = ops.interpolate(
        wide, target, "nearest", "sizes", coordinate_transformation_mode="asymmetric", nearest_mode="floor", axes=axes
    )
    kernel = ops.constant(np.round(_random(4, 3, 3, 3) * 4) / 4, dtype=openvino.Type.bf16)
    y = ops.convolution(ops.convert(large, "bf16"), kernel, [1, 1], [1, 1], [1, 1], [1, 1])
    model = openvino.Model([ops.convert(y, "f32")], [x], "converted")
    pixels = np.round(_random(2, 3, 4, 5) * 4) / 4
    expected = _result(model.clone(), x=pixels)
    assert convolve_before_doubling(model) == 1
    assert "Interpolate" not in {node.get_type_name() for node in model.get_ordered_ops()}
    np.testing.assert_allclose(_result(model, x=pixels), expected, rtol=1e-2, atol=1e-2)


def test_bfloat16_kernels_are_rounded_to_the_nearest() -> None:
    """``ops.constant`` cuts digits off, which makes every kernel a little smaller."""
    x = ops.parameter([1, 3, 4, 4], openvino.Type.bf16, name="x")
    axes, target = ops.constant(np.array([2, 3], np.int64)), ops.constant(np.array([8, 8], np.int64))
    large = ops.interpolate(
        x, target, "nearest", "sizes", coordinate_transformation_mode="asymmetric", nearest_mode="floor", axes=axes
    )
    weights = ops.constant(_random(4, 3, 3, 3), dtype=openvino.Type.bf16)
    model = openvino.Model([ops.convolution(large, weights, [1, 1], [1, 1], [1, 1], [1, 1])], [x], "kernels")
    exact = phase_kernels(weights.get_data(dtype=np.float32)).reshape(4, 4, 3, 2, 2)
    assert convolve_before_doubling(model) == 1
    kernels = [
        n for n in model.get_ordered_ops() if n.get_type_name() == "Constant" and len(n.get_output_shape(0)) == 4
    ]
    found = {kernel.data.view(np.uint16).tobytes() for kernel in kernels}
    assert found == {phase.astype(ml_dtypes.bfloat16).tobytes() for phase in exact}


def test_phase_kernels_add_up_to_the_whole() -> None:
    weights = _random(4, 3, 3, 3)
    np.testing.assert_allclose(
        phase_kernels(weights).sum((-2, -1)),
        weights.sum((-2, -1))[None, None].repeat(2, 0).repeat(2, 1),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("size", [(3, 3), (4, 7), (16, 8)])
def test_convolving_before_doubling_gives_the_same(size: tuple[int, int]) -> None:
    model = _doubling(size)
    x = _random(2, 3, *size)
    expected = _result(model.clone(), x=x)
    assert convolve_before_doubling(model) == 1
    assert "Interpolate" not in {node.get_type_name() for node in model.get_ordered_ops()}
    np.testing.assert_allclose(_result(model, x=x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wrong", [{"scale": (2, 3)}, {"stride": 2}])
def test_other_convolutions_are_left_alone(wrong: dict[str, Any]) -> None:
    assert convolve_before_doubling(_doubling((4, 4), **wrong)) == 0


def test_unknown_sizes_are_left_alone() -> None:
    model = _doubling((4, 4))
    model.reshape([2, 3, -1, -1])
    assert convolve_before_doubling(model) == 0


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_a_bundle_of_one_size_agrees_with_torch(kind: str, size: tuple[int, int]) -> None:
    """Also at a size at which levels do not double."""
    bundle = Bundle(bundle_of(kind))
    h, w = size
    spec = with_one_size(bundle, "denoiser", h=h, w=w)
    lengths = {"S": 2, "R": 3, "T": 77, "h": h, "w": w}
    inputs = {t.name: _random(*t.resolve(lengths)).astype(t.dtype) for t in spec.inputs}
    inputs["row_sample"][:], inputs["rescale"][:], inputs["timestep"][:] = [0, 1, 0], 0, [500, 300, 500]
    inputs["mix"][:] = [[-6.5, 0, 7.5], [0, 1, 0]]
    expected = run(open_engine(bundle, "denoiser", engine="torch", precision="fp32").engine, inputs)["next_state"]
    actual = run(open_engine(bundle, "denoiser", engine="openvino", precision="fp32").engine, inputs)["next_state"]
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-3 * float(np.ptp(expected)))


@pytest.mark.skipif(openvino_cpu.preferred(["bf16"]) != "bf16", reason="the CPU has no bfloat16")
def test_a_bfloat16_bundle_is_run_from_its_own_graphs(tmp_path: Path) -> None:
    """Weights in bfloat16 are mapped: float32 copies of them are what a float32 graph costs."""
    bundle = export_bundle(
        checkpoint_of("sd1"), tmp_path / "b", engines=["openvino"], precision="bf16", sizes="64x64", verify="fast"
    )
    assert {*bundle.component("denoiser").graphs} == {"bf16"}
    assert bundle.manifest.networks["unet"].dtype == "bfloat16"
    engine = open_engine(bundle, "denoiser", engine="openvino").engine
    assert engine.precision == "bf16"
    assert {tensor.dtype for tensor in engine.spec.inputs} == {"float32", "int64"}
    with Pipeline.load(bundle.path, engine="openvino") as pipe:
        image = pipe("a house", num_inference_steps=2, seed=1, output_type="np").images[0]
    with Pipeline.load(bundle_of("sd1"), engine="torch", precision="fp32") as pipe:
        settings = {"height": 64, "width": 64, "num_inference_steps": 2, "seed": 1, "output_type": "np"}
        expected = pipe("a house", **settings).images[0]
    error = float(np.sqrt(np.mean((image - expected) ** 2)))
    assert 20 * np.log10(1 / error) > 30
    with pytest.raises(BundleError, match="holds denoiser in bf16, not in fp32"):
        open_engine(bundle, "denoiser", engine="openvino", precision="fp32")
