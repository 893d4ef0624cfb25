"""The first layer that departs is the one that was spoilt, on every engine and reference that runs here."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import EngineError, UsageError
from sdengine.export.debug.find import DebugSettings, find_departure
from sdengine.export.debug.graph_layers import GraphLayer, chunks

from ...bundles import bundle_of
from .spoilt import spoilt


def _middle(graph: onnx.GraphProto, kind: str) -> onnx.NodeProto:
    nodes = [node for node in graph.node if node.op_type == kind]
    return nodes[len(nodes) // 2]


def _epsilon(graph: onnx.GraphProto) -> str:
    node = _middle(graph, "LayerNormalization")
    next(a for a in node.attribute if a.name == "epsilon").f = 10.0
    return str(node.output[0])


def _weight(graph: onnx.GraphProto) -> str:
    """Put another weight into the graph, in the place of the one in the weights file."""
    node = _middle(graph, "Conv")
    [old] = [w for w in graph.initializer if w.name == node.input[1]]
    other = np.random.default_rng(0).standard_normal(list(old.dims)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(other, "other"))
    node.input[1] = "other"
    return str(node.output[0])


@pytest.mark.parametrize(
    ("engine", "component", "change", "contrib"),
    [
        ("onnxruntime", "denoiser", _epsilon, True),
        ("openvino", "denoiser", _epsilon, False),
        ("openvino", "vae_decoder", _weight, False),
        ("onnxruntime", "vae_decoder", _weight, True),
        ("onnxruntime", "text_encoder", _epsilon, True),
    ],
)
def test_the_spoilt_node_is_found(tmp_path: Path, engine: str, component: str, change: object, contrib: bool) -> None:
    path, name = spoilt(bundle_of("sd1"), tmp_path, component, change, contrib=contrib)  # type: ignore[arg-type]
    found = find_departure(Bundle(path), component, engine, DebugSettings(against="torch", precision="fp32"))
    assert found.departs
    assert found.first[0].value == name
    assert found.first[0].inputs_error is None or found.first[0].inputs_error < 1e-4


def test_small_chunks_find_the_same_and_stop_there(tmp_path: Path) -> None:
    path, name = spoilt(bundle_of("sd1"), tmp_path, "vae_decoder", _weight, contrib=True)
    settings = DebugSettings(against="onnxruntime", memory=500_000)
    found = find_departure(Bundle(path), "vae_decoder", "onnxruntime", settings)
    assert found.first[0].value == name
    assert found.compared + found.unseen < found.layers


def test_a_graph_that_is_whole_does_not_depart() -> None:
    for component in ("conditioner", "text_encoder", "vae_encoder"):
        found = find_departure(Bundle(bundle_of("sd1")), component, "onnxruntime", DebugSettings())
        assert not found.departs
        assert found.compared + found.unseen == found.layers
        assert found.worst is not None and found.worst.error is not None and found.worst.error < 1e-4
        assert "contrib" in found.ran or found.graph in found.ran or component != "denoiser"


def test_a_node_that_is_not_as_traced_is_named_within_tolerance_too(tmp_path: Path) -> None:
    path, name = spoilt(bundle_of("sd1"), tmp_path, "text_encoder", _epsilon, contrib=False)
    found = find_departure(Bundle(path), "text_encoder", "openvino", DebugSettings(precision="fp32", tolerance=100.0))
    assert not found.departs
    [note] = [note for note in found.notes if name in note]
    assert "the network is traced to one with epsilon" in note


def test_bytes_may_round_to_either_side() -> None:
    found = find_departure(Bundle(bundle_of("sd1")), "vae_decoder", "openvino", DebugSettings(precision="fp32"))
    assert not found.departs, found.first


def test_what_is_rewritten_keeps_its_name(tmp_path: Path) -> None:
    path, _ = spoilt(bundle_of("sd1"), tmp_path, "vae_decoder", _weight, contrib=False)
    bundle = Bundle(path)
    rewritten = find_departure(bundle, "vae_decoder", "onnxruntime", DebugSettings())
    assert not rewritten.departs and "contrib" in rewritten.ran, "what was spoilt is not what the engine runs"
    found = find_departure(bundle, "vae_decoder", "onnxruntime", DebugSettings(plain=True, against="torch"))
    assert found.departs and "contrib" not in found.ran


def test_float16_against_float32() -> None:
    bundle = Bundle(bundle_of("sdxl", precision="fp16"))
    found = find_departure(bundle, "denoiser", "onnxruntime", DebugSettings(against="onnxruntime"))
    assert not found.departs, found.first
    assert found.precision == "fp16" and found.unseen < found.layers / 4
    assert found.worst is not None and found.worst.error is not None and 1e-5 < found.worst.error < 3e-2
    tight = find_departure(bundle, "denoiser", "onnxruntime", DebugSettings(against="torch", tolerance=1e-4))
    assert tight.departs and tight.reason == "as asked for"


@pytest.mark.parametrize("against", ["torch", "onnxruntime"])
def test_bfloat16_of_openvino(against: str) -> None:
    from sdengine.engines.ov.openvino_library import core

    if "BF16" not in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not multiply bfloat16")
    found = find_departure(
        Bundle(bundle_of("sd1")), "denoiser", "openvino", DebugSettings(against=against, precision="bf16")
    )
    assert not found.departs, found.first
    assert found.precision == "bf16"
    assert found.worst is not None and found.worst.error is not None and found.worst.error > 1e-3, "bfloat16 ran"


def test_torch_in_half_precision() -> None:
    bundle = Bundle(bundle_of("sd1", engines=["torch"], precision="bf16"))
    found = find_departure(bundle, "conditioner", "torch", DebugSettings(against="torch"))
    assert not found.departs and found.precision == "bf16"


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        ("onxruntime", DebugSettings(), "did you mean 'onnxruntime'"),
        ("onnxruntime", DebugSettings(against="touch"), "did you mean 'torch'"),
        ("onnxruntime", DebugSettings(tolerance=0.0), "no positive number"),
        ("onnxruntime", DebugSettings(size=(33, 32)), "no multiple of 8 from 8 to 128"),
        ("torch", DebugSettings(), "the reference itself"),
        ("torch", DebugSettings(precision="bf16"), "try --precision fp32"),
    ],
)
def test_what_cannot_be_had_is_told(engine: str, settings: DebugSettings, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        find_departure(Bundle(bundle_of("sd1")), "vae_decoder", engine, settings)


def test_the_graph_of_another_version_has_no_names_in_torch(tmp_path: Path) -> None:
    def renamed(graph: onnx.GraphProto) -> str:
        fixed = {value.name for value in (*graph.input, *graph.output)} | {w.name for w in graph.initializer}
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [name if name in fixed else f"old_{name}" for name in names]
        return ""

    path, _ = spoilt(bundle_of("sd1"), tmp_path, "conditioner", renamed, contrib=False)
    with pytest.raises(EngineError, match="--against onnxruntime"):
        find_departure(Bundle(path), "conditioner", "openvino", DebugSettings(precision="fp32"))


def test_chunks_are_neighbours_of_limited_size() -> None:
    layers = [GraphLayer(node="", operator="", inputs=(), outputs=(), bytes=size) for size in (3, 3, 9, 1, 1, 1)]
    assert [[layer.bytes for layer in chunk] for chunk in chunks(layers, 6)] == [[3, 3], [9], [1, 1, 1]]
