"""A graph leads to its network's weights and to no other file."""

import shutil
from pathlib import Path

import onnx
import pytest
from sdengine.engines.bundle.bundle import Bundle, file_sha256
from sdengine.engines.bundle.manifest import FileRecord, manifest_text
from sdengine.engines.errors import DamagedBundleError
from sdengine.engines.registry import open_engine

from ...bundles import bundle_of


def _relocated(folder: Path, location: str) -> Bundle:
    """Return a bundle whose decoder takes one weight from elsewhere; every hash fits, as its author would see to."""
    bundle = Bundle(folder)
    graph = bundle.graph("vae_decoder", "fp32")
    assert graph.contrib is not None
    for name in (graph.file, graph.contrib):
        model = onnx.load(folder / name, load_external_data=False)
        tensor = next(t for t in model.graph.initializer if t.external_data)
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
        (folder / name).write_bytes(model.SerializeToString())
        bundle.manifest.files[name] = FileRecord(
            sha256=file_sha256(folder / name), bytes=(folder / name).stat().st_size
        )
    (folder / "manifest.json").write_bytes(manifest_text(bundle.manifest))
    return Bundle(folder)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "auto"])
@pytest.mark.parametrize("location", ["../../manifest.json", "/etc/passwd", "other.bin", "weights.safetensors.bak", ""])
def test_a_graph_that_names_another_file(tmp_path: Path, location: str, engine: str) -> None:
    folder = Path(shutil.copytree(bundle_of("sd1"), tmp_path / "bundle"))
    bundle = _relocated(folder, location)
    with pytest.raises(DamagedBundleError, match=r"names weights outside weights\.safetensors"):
        open_engine(bundle, "vae_decoder", engine=engine, precision="fp32")


def test_graphs_as_they_are_exported_pass() -> None:
    for kind in ("sd1", "sdxl"):
        bundle = Bundle(bundle_of(kind))
        for name, component in bundle.manifest.components.items():
            for graph in component.graphs.values():
                bundle.checked_graph(name, graph.file)
