"""What stays in float32 in graphs of half precision, and that bfloat16 graphs compute what torch computes.

The softmax of an ``Attention`` cannot be asked to be float32: TensorRT's parser refuses ``softmax_precision``. Its
fused kernels, and those of ONNX Runtime, keep their sums in float32 of themselves.
"""

import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from packaging.version import Version
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.graph_file import operators_by_precision, read_graph
from sdengine.engines.engine import run
from sdengine.engines.parity import TOLERANCES, relative_error, sample
from sdengine.engines.registry import ENGINES, open_engine
from sdengine.runtime import Pipeline

from ..bundles import bundle_of

SINUSOIDS = {"Sin", "Cos", "Exp"}
STEP = {"ReduceSum", "ReduceMean", "Where", "Sqrt", "Clip", "Sub", "Div"}
NETWORK = {"Conv", "MatMul", "Gemm", "Attention", "GroupNormalization", "LayerNormalization", "Gelu"}


def bundle_in(precision: str) -> Bundle:
    return Bundle(bundle_of("sdxl", engines=["torch"], precision=precision, batch="1..2"))


def kinds_of(bundle: Bundle, component: str, precision: str) -> dict[str, set[str]]:
    found = operators_by_precision(read_graph(bundle.file(bundle.graph(component, precision).file)))
    return {p: set(kinds) for p, kinds in found.items()}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_sinusoids_and_the_step_are_float32_and_the_network_is_not(precision: str) -> None:
    bundle = bundle_in(precision)
    kinds = kinds_of(bundle, "denoiser", precision)
    assert set(kinds) == {precision, "fp32"}
    assert kinds["fp32"] >= SINUSOIDS | STEP and not (SINUSOIDS | STEP) & kinds[precision]
    assert kinds[precision] >= NETWORK and not NETWORK & kinds["fp32"]
    sizes = kinds_of(bundle, "conditioner", precision)
    assert sizes["fp32"] >= SINUSOIDS and not SINUSOIDS & sizes[precision]


def test_sdxl_s_vae_is_float32_where_float16_was_asked_for() -> None:
    bundle = bundle_in("fp16")
    for component in ("vae_decoder", "vae_encoder"):
        assert set(bundle.component(component).graphs) == {"fp32"}
        found = kinds_of(bundle, component, "fp32")
        assert set(found) == {"fp32"} and "Conv" in found["fp32"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_norms_take_their_means_in_float32(precision: str) -> None:
    bundle = bundle_in(precision)
    checked = 0
    for component in bundle.manifest.components.values():
        for graph in component.graphs.values():
            for node in onnx.load(bundle.file(graph.file), load_external_data=False).graph.node:
                if node.op_type in ("GroupNormalization", "LayerNormalization"):
                    # ONNX: stash_type is float32 (1) unless it is given
                    assert [a.i for a in node.attribute if a.name == "stash_type"] in ([], [onnx.TensorProto.FLOAT])
                    checked += 1
    assert checked > 50


def test_bfloat16_stays_inside_the_graphs() -> None:
    bundle = bundle_in("bf16")
    for name, component in bundle.manifest.components.items():
        graph = component.graphs["bf16"]
        assert {t.dtype for t in (*graph.spec.inputs, *graph.spec.outputs)} <= {"float32", "int64", "uint8"}
        assert "Resize" not in kinds_of(bundle, name, "bf16").get("bf16", set()), "TensorRT resizes no bfloat16"


@pytest.mark.skipif(
    Version(onnx.__version__) < Version("1.23"), reason="ONNX's reference multiplies bfloat16 from onnx 1.23 on"
)
@pytest.mark.parametrize("component", ["conditioner", "denoiser", "vae_decoder"])
def test_bfloat16_graphs_compute_what_torch_computes(component: str) -> None:
    """No engine of a CPU runs them, so ONNX's own reference does."""
    bundle = bundle_in("bf16")
    graph = bundle.graph(component, "bf16")
    _, inputs = sample(graph.spec, 0)
    with_torch = open_engine(bundle, component, engine="torch", precision="fp32").engine
    wanted = run(with_torch, inputs)
    with_torch.close()
    values = ReferenceEvaluator(onnx.load(bundle.file(graph.file))).run(None, inputs)
    found = {tensor.name: value for tensor, value in zip(graph.spec.outputs, values, strict=True)}
    assert {value.dtype.name for value in found.values()} <= {"float32", "uint8"}
    assert relative_error(found, wanted) < TOLERANCES["bf16"] / 2


def test_a_bfloat16_bundle_draws() -> None:
    assert all("bf16" in ENGINES[name].precisions for name in ("tensorrt", "tensorrt-rtx", "torch"))
    with Pipeline.load(bundle_in("bf16").path, engine="torch", precision="bf16") as pipe:
        result = pipe("a cat", height=64, width=64, num_inference_steps=2, seed=1, output_type="np")
    assert result.images.shape == (1, 64, 64, 3) and not result.fallbacks
