"""Bundles: what is written, and that it is whole or not there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.numpy
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import BundleError, ExportError, UsageError
from sdengine.engines.registry import open_engine
from sdengine.export import export_bundle
from sdengine.export import weights_file as weights
from sdengine.export import write_bundle as writer
from sdengine.export.checkpoint import open_checkpoint
from sdengine.export.weights_file import place_weights
from sdengine.runtime import Pipeline

from ..bundles import SIZES, bundle_of, checkpoint_of

QUICK = {"num_inference_steps": 2, "height": 40, "width": 48, "seed": 1, "output_type": "np"}


def copy_of(kind: str, target: Path) -> Path:
    return Path(shutil.copytree(bundle_of(kind), target))


@pytest.mark.parametrize("kind", ["sdxl", "sd1"])
def test_graphs_are_checked_and_hold_no_weights(kind: str, tmp_path: Path) -> None:
    bundle = Bundle(copy_of(kind, tmp_path / "bundle"))  # onnx refuses weights that something else links to
    for name, component in bundle.manifest.components.items():
        for graph in component.graphs.values():
            path = bundle.file(graph.file)
            onnx.checker.check_model(str(path), full_check=True)
            model = onnx.load(str(path), load_external_data=False)
            assert model.opset_import[0].version == 23
            large = [t.name for t in model.graph.initializer if t.data_location != 1 and len(t.raw_data) > 4096]
            assert not large, f"{name} holds weights in the graph: {large}"
            for value in (*model.graph.input, *model.graph.output):
                tensor = next(t for t in (*graph.spec.inputs, *graph.spec.outputs) if t.name == value.name)
                dims = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
                assert dims == list(tensor.shape)


def test_fused_operators_are_kept() -> None:
    bundle = Bundle(bundle_of("sdxl"))
    model = onnx.load(str(bundle.file(bundle.graph("denoiser", "fp32").file)), load_external_data=False)
    kinds = {node.op_type for node in model.graph.node}
    assert {"Attention", "GroupNormalization", "Gelu", "LayerNormalization", "Conv"} <= kinds
    # Mix and update are multiply-and-sum: every matrix product left belongs to a linear layer, whose second operand
    # is a weight.
    stored = {t.name for t in model.graph.initializer}
    made = {node.output[0]: node for node in model.graph.node}
    for node in model.graph.node:
        if node.op_type == "MatMul":
            assert made[node.input[1]].op_type == "Transpose" and made[node.input[1]].input[0] in stored


@pytest.mark.parametrize("link", [True, False])
def test_large_weights_are_linked_where_they_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: bool) -> None:
    unet = open_checkpoint(checkpoint_of("sdxl")).components["unet"]
    assert unet.file is not None
    monkeypatch.setattr(weights, "LINK_FROM", unet.file.stat().st_size)
    assert place_weights(unet, tmp_path / "w.safetensors", store=None, link=link) is link
    assert os.path.samefile(tmp_path / "w.safetensors", unet.file) is link
    assert not place_weights(unet, tmp_path / "half.safetensors", store="F16", link=link)
    monkeypatch.setattr(weights, "LINK_FROM", unet.file.stat().st_size + 1)
    assert not place_weights(unet, tmp_path / "small.safetensors", store=None, link=link)
    assert (tmp_path / "small.safetensors").read_bytes() == unet.file.read_bytes()


def test_float16_graphs_from_float32_weights(tmp_path: Path) -> None:
    bundle = Bundle(bundle_of("sdxl", precision="fp16"))
    networks = bundle.manifest.networks
    assert networks["unet"].dtype == "float16"
    assert networks["vae"].dtype == "float32", "SDXL's VAE overflows in float16"
    stored = safetensors.numpy.load_file(bundle.file(networks["unet"].weights))
    assert {w.dtype for w in stored.values()} == {np.dtype("float16")}
    assert list(bundle.component("denoiser").graphs) == ["fp16"]
    assert list(bundle.component("vae_decoder").graphs) == ["fp32"]
    with Pipeline.load(bundle.path) as half, Pipeline.load(bundle_of("sdxl")) as single:
        difference = half("a cat", **QUICK).images - single("a cat", **QUICK).images
    # Eleven bits of mantissa through some forty layers, twice.
    assert 0 < np.abs(difference).max() < 0.05


def test_a_moved_bundle_draws_the_same(tmp_path: Path) -> None:
    moved = copy_of("sd1", tmp_path / "elsewhere")
    with Pipeline.load(bundle_of("sd1")) as here, Pipeline.load(moved) as there:
        assert np.array_equal(here("a cat", **QUICK).images, there("a cat", **QUICK).images)
    text = (moved / "manifest.json").read_text()
    assert str(checkpoint_of("sd1").parent) not in text, "a bundle must not hold absolute paths"


def test_damage_is_found(tmp_path: Path) -> None:
    bundle = copy_of("sd1", tmp_path / "bundle")
    graph = bundle / "components/unet/denoiser.fp32.contrib.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.unlink()
    graph.write_bytes(data)
    with pytest.raises(BundleError, match=r"denoiser\.fp32\.contrib\.onnx is not the file that was exported"):
        open_engine(Bundle(bundle), "denoiser", engine="onnxruntime")
    graph.unlink()
    with pytest.raises(BundleError, match=r"denoiser\.fp32\.contrib\.onnx is missing"):
        Bundle(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "has schema 99, this version reads"),
        ({"family": 7}, "cannot be read"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    bundle = copy_of("sd1", tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(BundleError, match=message):
        Bundle(bundle)


def test_a_manifest_cannot_lead_out_of_the_bundle(tmp_path: Path) -> None:
    bundle = copy_of("sd1", tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["../stolen"] = {"sha256": "0" * 64, "bytes": 1}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle(bundle)


def test_an_existing_folder_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.mkdir()
    (target / "mine.txt").write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"):
        export_bundle(checkpoint_of("sd1"), target, sizes=SIZES, verify="off")
    assert (target / "mine.txt").read_text() == "precious"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("place", ["", "unet", "new", "..", "link"])
def test_the_output_is_apart_from_the_checkpoint(tmp_path: Path, place: str, overwrite: bool) -> None:
    checkpoint = shutil.copytree(checkpoint_of("sd1"), tmp_path / "above" / "checkpoint")
    (tmp_path / "link").symlink_to(checkpoint)
    target = tmp_path / "link" if place == "link" else checkpoint / place
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="which is read; write the bundle somewhere else"):
        export_bundle(checkpoint, target, sizes=SIZES, verify="off", overwrite=overwrite)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_read_besides_is_not_written_to_either(tmp_path: Path) -> None:
    vae = shutil.copytree(checkpoint_of("sd1") / "vae", tmp_path / "bundle")
    with pytest.raises(UsageError, match="which is read"):
        export_bundle(checkpoint_of("sd1"), vae, sizes=SIZES, verify="off", overwrite=True, vae=vae)
    linked = tmp_path / "checkpoint"
    shutil.copytree(checkpoint_of("sd1"), linked)
    weights = linked / "unet" / "diffusion_pytorch_model.safetensors"
    bundle = copy_of("sd1", tmp_path / "old")
    stored = bundle / "components" / "unet" / "weights.safetensors"
    weights.unlink()
    weights.symlink_to(stored)
    with pytest.raises(UsageError, match=r"old holds .*model\.safetensors, which is read"):
        export_bundle(linked, bundle, sizes=SIZES, verify="off", overwrite=True)
    assert stored.is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_export_leaves_nothing(tmp_path: Path, number: int) -> None:
    process = _begun(tmp_path / "bundle")
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    words = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted", signal.SIGHUP: ""}
    assert words[signal.Signals(number)] in said
    assert list(tmp_path.iterdir()) == []


def test_the_next_export_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    process = _begun(tmp_path / "bundle")
    process.kill()
    process.communicate(timeout=120)
    [left] = tmp_path.iterdir()
    with pytest.raises(BundleError):
        Bundle(left)
    export_bundle(checkpoint_of("sd1"), tmp_path / "bundle", sizes=SIZES, verify="off")
    assert list(tmp_path.iterdir()) == [tmp_path / "bundle"]


def _begun(target: Path) -> "subprocess.Popen[str]":
    """Return an export that has written a part."""
    command = [sys.executable, "-m", "sdengine.runtime", "export", str(checkpoint_of("sd1")), "-o", str(target)]
    process = subprocess.Popen([*command, "--sizes", SIZES, "--verify", "off"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(target.parent.glob(f".{target.name}.partial-*/components/*/*.onnx")):
        assert process.poll() is None, "the export ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise ExportError("broken on purpose")

    monkeypatch.setattr(writer, "trace_component", fail)
    with pytest.raises(ExportError, match="on purpose"):
        export_bundle(checkpoint_of("sd1"), tmp_path / "bundle", sizes=SIZES, verify="off")
    assert list(tmp_path.iterdir()) == []


def test_verification_finds_a_wrong_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = writer.trace_component

    def wrong(kind: str, *args: object, **options: object) -> object:
        model = original(kind, *args, **options)  # type: ignore[arg-type]
        for node in model.graph:
            if node.op_type == "Sigmoid":
                node.op_type = "Tanh"
        return model

    monkeypatch.setattr(writer, "trace_component", wrong)
    with pytest.raises(ExportError, match="differs from torch"):
        export_bundle(checkpoint_of("sd1"), tmp_path / "bundle", sizes=SIZES, verify="fast")
    assert list(tmp_path.iterdir()) == []


def test_verification_is_recorded(tmp_path: Path) -> None:
    bundle = export_bundle(checkpoint_of("sd1"), tmp_path / "bundle", sizes=SIZES, verify="fast")
    results = {result.component: result for result in bundle.manifest.verification}
    assert set(results) == set(bundle.manifest.components)
    assert all(0 <= result.relative_error < 1e-4 for result in results.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sizes": "100x100"}, "no multiple of 8; 96 is"),
        ({"sizes": "big"}, "WIDTHxHEIGHT"),
        ({"sizes": "128..64"}, "the range is empty; write 64..128"),
        ({"batch": "0"}, "from 1 to 64"),
        ({"batch": "many"}, "MOST or LEAST..MOST"),
        ({"engines": ["onnxruntim"]}, "did you mean 'onnxruntime'"),
        ({"engines": []}, "at least one engine"),
        ({"precision": "int3"}, "unknown precision"),
        ({"precision": "bf16"}, "onnxruntime cannot run a graph in bf16"),
        ({"verify": "perhaps"}, "none of full, fast, off"),
    ],
)
def test_bad_options_write_nothing(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        export_bundle(checkpoint_of("sd1"), tmp_path / "bundle", **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
