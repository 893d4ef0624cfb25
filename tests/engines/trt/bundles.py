"""Copies of the tiny bundles, to build plans into."""

import shutil
from pathlib import Path

import msgspec
from sdengine.engines.bundle.bundle import MANIFEST, Bundle

from ...bundles import bundle_of

__all__ = ["copy_of"]


def copy_of(
    kind: str, folder: Path, *, precision: str = "fp16", controlnets: int = 0, sizes: tuple[tuple[int, int], ...] = ()
) -> Path:
    """Return a copy of a bundle that lists ``sizes`` (height, width) as if exported for them."""
    # Graphs do not depend on the engine; that of a bundle for TensorRT would be built as it is exported.
    engine = "torch" if precision == "bf16" else "onnxruntime"
    source = bundle_of(kind, engines=[engine], precision=precision, controlnets=controlnets, batch="1..2")
    target = folder / f"{kind}-{precision}"
    shutil.copytree(source, target)
    manifest = msgspec.structs.replace(Bundle(target).manifest, sizes=list(sizes))
    (target / MANIFEST).unlink()
    (target / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return target
