"""What is read of a graph without onnx is what onnx reads; a damaged file is refused."""

from collections import Counter
from pathlib import Path

import onnx
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.graph_file import operators_by_precision, read_graph
from sdengine.engines.errors import BundleError

from ...bundles import bundle_of


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle(bundle_of("sdxl", engines=["onnxruntime"], precision="fp16", batch="1..2"))


def graphs(bundle: Bundle) -> list[Path]:
    return [bundle.file(g.file) for c in bundle.manifest.components.values() for g in c.graphs.values()]


def test_operators_and_initialisers_are_onnx_s(bundle: Bundle) -> None:
    for file in graphs(bundle):
        found, wanted = read_graph(file), onnx.load(file, load_external_data=False).graph
        assert [(o.kind, list(o.inputs), list(o.outputs)) for o in found.operators] == [
            (node.op_type, list(node.input), list(node.output)) for node in wanted.node
        ]
        assert list(found.initialisers) == [tensor.name for tensor in wanted.initializer]
        for tensor in wanted.initializer:
            initialiser = found.initialisers[tensor.name]
            external = {entry.key: entry.value for entry in tensor.external_data}
            assert initialiser.type == tensor.data_type
            assert initialiser.offset == (int(external["offset"]) if external else None)
            assert initialiser.length == int(external.get("length", len(tensor.raw_data)))
            assert initialiser.length % max(initialiser.count, 1) == 0


def test_precisions_are_onnx_s(bundle: Bundle) -> None:
    names = {1: "fp32", 10: "fp16", 16: "bf16"}
    for file in graphs(bundle):
        model = onnx.load(file, load_external_data=False)
        shaped = onnx.shape_inference.infer_shapes(model).graph
        types = {v.name: v.type.tensor_type.elem_type for v in [*shaped.value_info, *shaped.output]}
        counts: dict[str, Counter[str]] = {}
        for node in model.graph.node:
            if types.get(node.output[0]) in names:  # onnx leaves out what it cannot infer
                counts.setdefault(names[types[node.output[0]]], Counter())[node.op_type] += 1
        found = operators_by_precision(read_graph(file))
        if "conditioner" in file.name:
            assert found == counts
        # onnx cannot infer past an Attention, so of the others it knows a part
        for precision, kinds in counts.items():
            assert all(found[precision][kind] >= count for kind, count in kinds.items())
        attention = sum(node.op_type == "Attention" for node in model.graph.node)
        assert sum(kinds.get("Attention", 0) for kinds in found.values()) == attention


@pytest.mark.parametrize("change", ["cut", "noise", "text", "empty"])
def test_a_damaged_file_is_refused(bundle: Bundle, tmp_path: Path, change: str) -> None:
    data = graphs(bundle)[0].read_bytes()
    damaged = {"cut": data[:-7], "noise": b"\xff" * 64, "text": b"<html></html>", "empty": b""}[change]
    (tmp_path / "x.onnx").write_bytes(damaged)
    with pytest.raises(BundleError, match=r"x\.onnx is no ONNX graph.*export it again"):
        read_graph(tmp_path / "x.onnx")
