"""Graphs in ONNX Runtime's own operators compute what the plain ones compute; what does not fit is left alone."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.manifest import Graph
from sdengine.engines.parity import relative_error, sample
from sdengine.export.contrib import rewrite_for_onnxruntime

from ..bundles import bundle_of

KINDS = ["sd1", "sd2", "sdxl", "sdxl_refiner", "sd_inpaint", "sdxl_inpaint", "lcm"]
NO_KERNEL = {"Attention", "GroupNormalization"}


def _graphs(bundle: Bundle) -> dict[str, Graph]:
    return {name: component.graphs["fp32"] for name, component in bundle.manifest.components.items()}


def _kinds(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)


def _results(source: Path | bytes, inputs: dict[str, Any]) -> dict[str, Any]:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    model = str(source) if isinstance(source, Path) else source
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, inputs), strict=True))


@pytest.mark.parametrize("controlnets", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_both_graphs_compute_the_same(kind: str, controlnets: int) -> None:
    if controlnets and kind not in ("sd1", "sdxl"):
        pytest.skip("there are ControlNets for these two")
    bundle = Bundle(bundle_of(kind, controlnets=controlnets))
    for name, graph in _graphs(bundle).items():
        if graph.contrib is None:
            continue
        for case in range(2):
            _, inputs = sample(graph.spec, case)
            if "attention_mask" in inputs:
                inputs["attention_mask"][0, 9:] = 0
            plain = _results(bundle.file(graph.file), inputs)
            contrib = _results(bundle.file(graph.contrib), inputs)
            assert relative_error(contrib, plain) < 1e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_all_of_the_networks_is_rewritten(kind: str) -> None:
    bundle = Bundle(bundle_of(kind))
    for name, graph in _graphs(bundle).items():
        assert graph.contrib is not None, name
        plain, contrib = _kinds(bundle.file(graph.file)), _kinds(bundle.checked_file(graph.contrib))
        assert not NO_KERNEL & set(contrib)
        assert contrib["MultiHeadAttention"] == plain["Attention"]
        assert contrib["InstanceNormalization"] == plain["GroupNormalization"]
        assert contrib["MatMul"] == 0
        # the norms of a transformer are behind a residual, but for the first of each stack and the last of a text's
        assert contrib["SkipLayerNormalization"] >= plain["LayerNormalization"] // 2


def test_graphs_of_half_precision_have_no_second_form() -> None:
    bundle = Bundle(bundle_of("sdxl", precision="fp16"))
    graphs = {p: g for c in bundle.manifest.components.values() for p, g in c.graphs.items()}
    assert graphs["fp16"].contrib is None and graphs["fp32"].contrib is not None


_ATTENDS = """
<ir_version: 11, opset_import: ["": 23]>
g (float[B, N, 12] x, float[B, N, 12] other) => (float[B, N, 12] y, float[B, M, P, W] seen)
<int64[4] heads = {0, 0, 3, -1}, int64[3] all = {0, 0, -1}> {
    r = Reshape(x, heads)
    q = Transpose<perm = [0, 2, 1, 3]>(r)
    s = Reshape(other, heads)
    k = Transpose<perm = [0, 2, 1, 3]>(s)
    a = Attention<scale = 0.5, is_causal = 0>(q, k, k)
    t = Transpose<perm = [0, 2, 1, 3]>(a)
    y = Reshape(t, all)
    seen = Identity(q)
}
"""
_NORMS = """
<ir_version: 11, opset_import: ["": 23]>
g (float[B, N, 4] x, float[4, 4] w, float[4] b) => (float[B, N, 4] y)
<float[4] gamma = {1, 2, 3, 4}, float[4] beta = {4, 3, 2, 1}> {
    v = Transpose<perm = [1, 0]>(w)
    p = MatMul(x, v)
    q = Add(p, b)
    s = Add(x, q)
    n = LayerNormalization<axis = -1, epsilon = 0.1>(s, gamma, beta)
    y = Add(n, s)
}
"""


def _rewritten(text: str) -> tuple[int, Counter[str], bytes, bytes]:
    model = ir.from_onnx_text(text)
    plain = ir.to_proto(model).SerializeToString()
    count = rewrite_for_onnxruntime(model.graph)
    return count, Counter(node.op_type for node in model.graph), plain, ir.to_proto(model).SerializeToString()


def _random(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def _same(plain: bytes, rewritten: bytes, inputs: dict[str, Any]) -> None:
    expected, actual = _results(plain, inputs), _results(rewritten, inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=1e-5, atol=1e-6)


def test_attention_of_unequal_lengths_with_a_scale_of_its_own() -> None:
    count, kinds, plain, rewritten = _rewritten(_ATTENDS)
    assert (count, kinds["MultiHeadAttention"], kinds["Attention"]) == (1, 1, 0)
    _same(plain, rewritten, {"x": _random(2, 5, 12), "other": _random(2, 7, 12)})


@pytest.mark.parametrize(
    "change",
    [
        ("is_causal = 0", "is_causal = 1"),
        ("seen = Identity(q)", "seen = Identity(t)"),
        ("seen = Identity(q)", "seen = Identity(a)"),
        ("k = Transpose<perm = [0, 2, 1, 3]>", "k = Transpose<perm = [0, 2, 3, 1]>"),
        ("t = Transpose<perm = [0, 2, 1, 3]>", "t = Transpose<perm = [0, 1, 2, 3]>"),
        ("heads = {0, 0, 3, -1}", "heads = {0, -1, 3, 4}"),
        ("all = {0, 0, -1}", "all = {0, -1, 12}"),
    ],
    ids=["causal", "joined heads are seen", "results are seen", "keys", "joined otherwise", "rows", "shape"],
)
def test_other_attention_is_left_alone(change: tuple[str, str]) -> None:
    assert _ATTENDS.count(change[0]) == 1
    count, kinds, _, _ = _rewritten(_ATTENDS.replace(*change))
    assert (count, kinds["Attention"]) == (0, 1)


def test_a_norm_behind_a_residual_and_the_sum_that_others_use() -> None:
    count, kinds, plain, rewritten = _rewritten(_NORMS)
    assert count == 2  # the product too
    assert kinds == {"FusedMatMul": 1, "SkipLayerNormalization": 1, "Add": 1}
    _same(plain, rewritten, {"x": _random(2, 3, 4), "w": _random(4, 4), "b": _random(4)})


@pytest.mark.parametrize(
    "change",
    [
        ("y = Add(n, s)", "y = Add(n, q)"),
        ("s = Add(x, q)", "s = Mul(x, q)"),
        ("q = Add(p, b)", "q = Mul(p, b)"),
        ("n = LayerNormalization<axis = -1,", "n = LayerNormalization<axis = 1,"),
    ],
    ids=["the layer's result is seen", "a product", "no bias", "more axes"],
)
def test_other_norms_are_left_alone(change: tuple[str, str]) -> None:
    assert _NORMS.count(change[0]) == 1
    assert _rewritten(_NORMS.replace(*change))[1]["SkipLayerNormalization"] == 0


def test_products_of_other_matrices_are_left_alone() -> None:
    assert _rewritten(_NORMS.replace("perm = [1, 0]", "perm = [0, 1]"))[1]["FusedMatMul"] == 0
