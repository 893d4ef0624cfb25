"""Tiny bundles of every family, exported once and shared by all tests.

They are kept between sessions, in a folder named after a hash of everything that an export depends on: after a change
to the exporter, the networks or the checkpoints, they are made again.
"""

import contextlib
import functools
import getpass
import hashlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import UsageError
from sdengine.engines.spec import AxisRange, ComponentSpec
from sdengine.export import export_bundle

from .checkpoints import BUILDERS

__all__ = ["SIZES", "bundle_of", "checkpoint_of", "controlnets_of", "with_one_size"]

SIZES = "32..128"
"""Heights and widths in pixels; components are traced at other sizes than tests draw at."""

_CONTROLNETS = {"sd1": "controlnet_sd", "sdxl": "controlnet_sdxl", "sdxl_inpaint": "controlnet_sdxl"}


_ROOT = Path(__file__).parents[1]
_SOURCES = (
    "engines/bundle/bundle.py",
    "engines/component_specs.py",
    "engines/families",
    "engines/kinds.py",
    "engines/bundle/manifest.py",
    "engines/nets",
    "engines/spec.py",
    "export",
    "tests/checkpoints.py",
    "tests/clip_tokenizer.py",
)
"""What decides what an export writes; the ways to run it do not."""
_DAY = 24 * 3600.0


@functools.cache
def _folder() -> Path:
    """The folder for this state of the sources; folders that no session has used for two days are removed."""
    parent = Path(tempfile.gettempdir()) / f"sdengine-tests-{getpass.getuser()}"
    folder = parent / _hash_of_sources()
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    for other in parent.iterdir():
        if other.stat().st_mtime < time.time() - 2 * _DAY:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _hash_of_sources() -> str:
    found = hashlib.sha256("".join(f"{p} {version(p)}" for p in ("torch", "diffusers", "onnx-ir")).encode())
    for source in _SOURCES:
        for file in sorted([_ROOT / source] if source.endswith(".py") else (_ROOT / source).rglob("*.py")):
            found.update(file.relative_to(_ROOT).as_posix().encode() + file.read_bytes())
    return found.hexdigest()[:16]


@functools.cache
def checkpoint_of(kind: str, seed: int = 0) -> Path:
    """Return the folder of a tiny checkpoint, one of :data:`tests.checkpoints.BUILDERS`."""
    target = _folder() / f"{kind}-{seed}"
    if not target.exists():
        aside = Path(tempfile.mkdtemp(dir=_folder())) / target.name
        BUILDERS[kind](aside, seed=seed)
        with contextlib.suppress(OSError):  # another session was faster
            aside.rename(target)
    return target


def controlnets_of(kind: str, count: int) -> list[Path]:
    """Return folders of ``count`` different ControlNets that fit a checkpoint."""
    return [checkpoint_of(_CONTROLNETS[kind], seed=10 + i) for i in range(count)]


def bundle_of(
    kind: str,
    *,
    controlnets: int = 0,
    engines: Sequence[str] = ("onnxruntime",),
    precision: str = "auto",
    batch: str = "1..4",
) -> Path:
    """Return the folder of a bundle of a tiny checkpoint.

    Args:
        kind: one of :data:`tests.checkpoints.BUILDERS` that is no ControlNet.
        controlnets: how many ControlNets it holds.
        engines: those it is exported for.
        precision: as in ``export_bundle``.
        batch: as in ``export_bundle``.
    """
    return _exported(kind, controlnets, tuple(engines), precision, batch)


@functools.cache
def _exported(kind: str, controlnets: int, engines: tuple[str, ...], precision: str, batch: str) -> Path:
    name = "-".join([kind, str(controlnets), *engines, precision, batch.replace("..", "to")])
    target = _folder() / "bundles" / name
    target.parent.mkdir(exist_ok=True)
    if not target.exists():
        try:
            export_bundle(
                checkpoint_of(kind),
                target,
                engines=engines,
                precision=precision,
                sizes=SIZES,
                batch=batch,
                controlnets=controlnets_of(kind, controlnets),
                verify="off",
                prior=checkpoint_of("kandinsky_prior") if kind.startswith("kandinsky") else None,
            )
        except UsageError:  # another session was faster
            if not target.exists():
                raise
    return target


def with_one_size(bundle: Bundle, component: str, **lengths: int) -> ComponentSpec:
    """Let an open bundle say that these axes have but one length, as one exported for one size does."""
    record = bundle.component(component)
    graph = record.graphs["fp32"]
    fixed = {axis: AxisRange(n, n, n) for axis, n in lengths.items()}
    spec = msgspec.structs.replace(graph.spec, axes=graph.spec.axes | fixed)
    graphs = record.graphs | {"fp32": msgspec.structs.replace(graph, spec=spec)}
    bundle.manifest.components[component] = msgspec.structs.replace(record, graphs=graphs)
    return spec
