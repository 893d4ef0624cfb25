"""Bundles with one node of a graph changed, as a fault in an export or a library would leave it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import onnx
from sdengine.engines.bundle.bundle import MANIFEST, Bundle, file_sha256
from sdengine.engines.bundle.manifest import FileRecord

__all__ = ["spoilt"]


def spoilt(
    source: Path, folder: Path, component: str, change: Callable[[onnx.GraphProto], str], *, contrib: bool
) -> tuple[Path, str]:
    """Change a component's first graph in a copy of a bundle; return the copy and what ``change`` returned."""
    path = folder / "spoilt"
    shutil.copytree(source, path)
    bundle = Bundle(path)
    graph = next(iter(bundle.component(component).graphs.values()))
    name = graph.contrib if contrib else graph.file
    assert name is not None
    file = bundle.file(name)
    model = onnx.load(file, load_external_data=False)
    changed = change(model.graph)
    file.unlink()
    file.write_bytes(model.SerializeToString())
    files = bundle.manifest.files | {name: FileRecord(sha256=file_sha256(file), bytes=file.stat().st_size)}
    (path / MANIFEST).unlink()
    (path / MANIFEST).write_bytes(msgspec.json.encode(msgspec.structs.replace(bundle.manifest, files=files)))
    return path, changed
