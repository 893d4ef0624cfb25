import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.engine import Array, Engine, run
from sdengine.engines.errors import BundleError, EngineError, EngineUnavailableError, UsageError
from sdengine.engines.opening_options import OpeningOptions
from sdengine.engines.ov import compiled_variants, openvino_cpu
from sdengine.engines.registry import open_engine
from sdengine.engines.spec import ComponentSpec, TensorSpec

from ...bundles import bundle_of

pytest.importorskip("openvino")

LEAST_PSNR = {"fp32": 55.0, "bf16": 35.0}
has_bf16 = openvino_cpu.preferred(["fp32"]) == "bf16"
PRECISIONS = ["fp32", pytest.param("bf16", marks=pytest.mark.skipif(not has_bf16, reason="the CPU has no bfloat16"))]
needs_bf16 = pytest.mark.skipif(not has_bf16, reason="the CPU has no bfloat16")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sdxl() -> Bundle:
    return Bundle(bundle_of("sdxl"))


def _input(rng: np.random.Generator, tensor: TensorSpec, axes: dict[str, int]) -> Array:
    shape = tensor.resolve(axes)
    if tensor.name == "input_ids":
        return rng.integers(0, 40, shape)
    if tensor.name in ("attention_mask", "layer"):
        return np.ones(shape, np.int64)
    if tensor.name == "row_sample":
        return np.arange(shape[0]) % axes["S"]
    if tensor.name == "rescale":
        return np.zeros(shape, np.float32)
    if tensor.name in ("timestep", "time_ids"):
        return rng.integers(300, 1000, shape).astype(np.float32)  # beyond what 8 bits of mantissa hold
    if tensor.name == "image":
        return rng.random(shape, np.float32)
    return rng.standard_normal(shape, np.float32)


def _inputs(spec: ComponentSpec, **lengths: int) -> dict[str, Array]:
    """Random inputs of a size that is not square, not traced, and has more rows than samples."""
    axes = {"S": 2, "R": 3, "B": 3, "T": 154, "E": 2, "h": 9, "w": 7} | lengths
    rng = np.random.default_rng(0)
    return {tensor.name: _input(rng, tensor, axes) for tensor in spec.inputs}


def _psnr(actual: Array, expected: Array) -> float:
    error = float(np.sqrt(np.mean((actual.astype(np.float64) - expected) ** 2)))
    return 20 * float(np.log10(np.ptp(expected) / max(error, 1e-12)))


def _open(bundle: Bundle, component: str, precision: str | None = None, **options: Any) -> Engine:
    return open_engine(bundle, component, engine="openvino", precision=precision, **options).engine


@pytest.mark.parametrize("kind", ["sdxl", "sd1"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_component_agrees_with_torch(kind: str, precision: str) -> None:
    bundle = Bundle(bundle_of(kind))
    for name in bundle.manifest.components:
        reference = open_engine(bundle, name, engine="torch", precision="fp32").engine
        engine = _open(bundle, name, precision)
        assert engine.precision == precision
        inputs = _inputs(engine.spec)
        expected, actual = run(reference, inputs), run(engine, inputs)
        for output, array in expected.items():
            assert _psnr(actual[output], array) >= LEAST_PSNR[precision], (name, output)


@needs_bf16
def test_sizes_keep_their_digits_in_bf16(sdxl: Bundle) -> None:
    """In bfloat16, 981 is 980, and the sinusoid of it another one: 18 dB where 65 are reached."""
    inputs = _inputs(sdxl.graph("conditioner", "fp32").spec)
    inputs["time_ids"][:] = [501, 725, 981, 999, 1001, 1023]
    expected = run(open_engine(sdxl, "conditioner", engine="torch", precision="fp32").engine, inputs)["embedding"]
    assert _psnr(run(_open(sdxl, "conditioner", "bf16"), inputs)["embedding"], expected) > 50


@needs_bf16
def test_timesteps_keep_their_digits_in_bf16(sdxl: Bundle) -> None:
    """Rounded to bfloat16, all of these are 1000."""
    inputs = _inputs(sdxl.graph("denoiser", "fp32").spec, S=3, R=3)
    inputs["timestep"][:] = [998.25, 999, 1001]
    for name, array in inputs.items():  # the rows differ in nothing else
        if name.startswith("key_values"):
            array[:] = array[:1]
    inputs["state"][:] = inputs["state"][:1]
    inputs["embedding"][:] = inputs["embedding"][:1]
    inputs["mix"][:], inputs["input_scale"][:], inputs["update"][:] = np.eye(3), 1, 0
    inputs["update"][:, 0, 5] = 1  # the next latent is the prediction
    predictions = run(_open(sdxl, "denoiser", "bf16"), inputs)["next_state"][:, 0]
    reference = open_engine(sdxl, "denoiser", engine="torch", precision="fp32").engine
    expected = run(reference, inputs)["next_state"][:, 0]
    change, expected_change = predictions[:2] - predictions[2], expected[:2] - expected[2]
    assert np.abs(change - expected_change).mean() < 0.6 * np.abs(expected_change).mean()


@needs_bf16
def test_the_update_is_exact_in_bf16(sdxl: Bundle) -> None:
    inputs = _inputs(sdxl.graph("denoiser", "fp32").spec)
    update = inputs["update"]
    update[:] = 0
    update[:, 0, 0] = 1  # the latent is kept, bit by bit
    update[:, 1, 7] = 1  # the noise is remembered
    update[:, 2, 3], update[:, 2, 7] = 0.3, -1.7  # and a sum of memory and noise
    inputs["predict"][:], inputs["clip"][:] = [2.5, 0], [0.5, 1.5]  # a clipped multiple of the latent
    update[:, 3, 6] = 1
    inputs["mask"][:] = 1  # all of it is drawn
    state = run(_open(sdxl, "denoiser", "bf16"), inputs)["next_state"]
    np.testing.assert_array_equal(state[:, 0], inputs["state"][:, 0])
    np.testing.assert_array_equal(state[:, 1], inputs["noise"])
    mixed = np.float32(0.3) * inputs["state"][:, 3] + np.float32(-1.7) * inputs["noise"]
    np.testing.assert_allclose(state[:, 2], mixed, rtol=1e-6, atol=1e-6)
    bound = np.array([0.5, 1.5], np.float32)[:, None, None, None]
    np.testing.assert_array_equal(state[:, 3], np.clip(np.float32(2.5) * inputs["state"][:, 0], -bound, bound))
    inputs["mask"][:] = 0  # all of it is put back, but only in the latent
    kept = run(_open(sdxl, "denoiser", "bf16"), inputs)["next_state"]
    factors = inputs["blend"][:, :, None, None, None]
    known = factors[:, 0] * inputs["known"][:, 0] + factors[:, 1] * inputs["known"][:, 1]
    np.testing.assert_allclose(kept[:, 0], known, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(kept[:, 1:], state[:, 1:])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_buffers_are_read_and_written_at_every_run(sdxl: Bundle, precision: str) -> None:
    engine = _open(sdxl, "conditioner", precision)
    inputs = _inputs(engine.spec, R=2)
    outputs: dict[str, Array] = {
        tensor.name: np.full(tensor.resolve({"R": 2, "T": 154}), np.nan, np.float32) for tensor in engine.spec.outputs
    }
    once = engine.prepare(inputs, outputs)
    once()
    first = {name: array.copy() for name, array in outputs.items()}
    assert all(np.isfinite(array).all() for array in first.values())
    inputs["time_ids"][:] += 8
    inputs["hidden"][:] *= 2
    once()
    for name, array in outputs.items():
        assert not np.array_equal(array, first[name]), name
        np.testing.assert_array_equal(array, run(engine, inputs)[name])


def test_two_prepared_calls_do_not_disturb_each_other(sdxl: Bundle) -> None:
    engine = _open(sdxl, "vae_decoder", "fp32")
    small, large = _inputs(engine.spec, S=1, h=4, w=5), _inputs(engine.spec, S=1, h=8, w=6)
    targets = [
        {t.name: np.empty(t.resolve({"S": 1, "h": h, "w": w}), t.dtype) for t in engine.spec.outputs}
        for h, w in [(4, 5), (8, 6)]
    ]
    calls = [engine.prepare(i, t) for i, t in zip([small, large], targets, strict=True)]
    for call in (*calls, *reversed(calls)):
        call()
    for inputs, target in zip([small, large], targets, strict=True):
        for name, array in run(engine, inputs).items():
            np.testing.assert_array_equal(array, target[name])


def test_precision_is_chosen_from_what_the_cpu_has(sdxl: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _open(sdxl, "text_encoder").precision == ("bf16" if has_bf16 else "fp32")

    class Plain:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8"]

    monkeypatch.setattr(openvino_cpu, "core", Plain)
    assert openvino_cpu.preferred(["fp32", "fp16"]) == "fp32"
    assert openvino_cpu.preferred(["fp16"]) is None


def test_a_precision_that_does_not_run_is_refused(sdxl: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match="openvino cannot run fp16; it runs fp32, bf16"):
        _open(sdxl, "text_encoder", "fp16")
    real = compiled_variants.compiled
    monkeypatch.setattr("sdengine.engines.bundle.compiled_cache.LIMIT", 0)
    monkeypatch.setattr(
        compiled_variants,
        "compiled",
        lambda file, spec, lengths, options, **other: real(
            file, spec, lengths, {**options, "INFERENCE_PRECISION_HINT": "f32"}, **other
        ),
    )
    with pytest.raises(EngineUnavailableError, match="computes text_encoder in fp32 here, not in bf16"):
        _open(sdxl, "text_encoder", "bf16")


def test_auto_prefers_what_the_bundle_was_exported_for(sdxl: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = open_engine(sdxl, "text_encoder")
    assert (opened.engine.name, opened.fallbacks) == ("onnxruntime", ())
    monkeypatch.setattr("sdengine.engines.ort.onnxruntime_cpu.unavailable", lambda: "not here")
    opened = open_engine(sdxl, "text_encoder")
    assert opened.engine.name == "openvino"
    assert (opened.fallbacks[0].skipped, opened.fallbacks[0].reason) == ("onnxruntime", "not here")
    monkeypatch.setattr(openvino_cpu, "unavailable", lambda: "nor this")
    with pytest.raises(EngineUnavailableError, match="nor this"):
        _open(sdxl, "text_encoder")


def test_wrong_use(sdxl: Bundle, tmp_path: Path) -> None:
    engine = _open(sdxl, "vae_decoder", "fp32", options=OpeningOptions(threads=1))
    with pytest.raises(UsageError, match="axis h"):
        run(engine, {"latent": np.zeros((1, 4, 1000, 8), np.float32)})
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="has been closed"):
        run(engine, _inputs(engine.spec))
    damaged = tmp_path / "bundle"
    shutil.copytree(sdxl.path, damaged)
    file = damaged / sdxl.graph("vae_decoder", "fp32").file
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256 differs"):
        _open(Bundle(damaged), "vae_decoder")
