"""Copies of the tiny bundles, to build plans into."""

import os
import shutil
from pathlib import Path

import msgspec
from sdengine.engines.bundle import MANIFEST, Bundle

from ...bundles import bundle_of

__all__ = ["copy_of"]


def copy_of(kind: str, folder: Path, *, precision: str = "fp16", sizes: tuple[tuple[int, int], ...] = ()) -> Path:
    """Return a copy of a bundle, weights linked, that lists ``sizes`` (height, width) as if exported for them."""
    controlnets = 1 if kind in ("sd1", "sdxl") else 0
    source = bundle_of(kind, engines=["tensorrt-rtx"], precision=precision, controlnets=controlnets, batch="1..2")
    target = folder / f"{kind}-{precision}"
    shutil.copytree(source, target, copy_function=os.link)
    manifest = msgspec.structs.replace(Bundle(target).manifest, sizes=list(sizes))
    (target / MANIFEST).unlink()
    (target / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return target
