"""The order in which ``auto`` tries engines: the fastest of this machine first.

Which one that is depends on the processor, the network and its precision, so the engines that can run a bundle on the
CPU are timed on its denoiser, once: what they took is remembered in the user's cache, beside compiled models, until
the weights, the graphs, the processor or a library change. Engines on a GPU go first and are not timed.
"""

import hashlib
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from .bundle.bundle import Bundle
from .bundle.compiled_cache import processor
from .bundle.user_cache import CacheUnusableError, cached_file, prune, read_cached, write_cached
from .cuda.gpu import no_gpu
from .engine import run
from .errors import DamagedBundleError, SdengineError, UsageError
from .host_memory import free_host_memory
from .opening_options import OpeningOptions
from .parity import sample
from .registry import ENGINES, default_precision, exported_first, open_engine
from .spec import AxisRange, ComponentSpec

__all__ = ["AUTO", "AutoOrder", "auto_order"]

AUTO = "SDENGINE_AUTO"
"""Environment variable: ``measured``, the default, or ``exported``: nothing is timed, and the engines that the bundle
was exported for go first."""

_DENOISER = "denoiser"  # nearly all of the time goes there
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino")
_SIDE = 64
"""Longest sides that are timed, in latents: the order hardly depends on the size, the time does."""
_SECONDS = 1.0
_MOST, _LEAST = 50, 2
"""Evaluations of an engine that are timed at most and at least, until they have taken so many seconds."""
_ROOM = 3
"""So many times its weights an engine may need in memory: twice while it opens, and what it runs in."""
_LARGE = 256 << 20
"""Bytes of weights from which timing takes so long that it is announced."""
_FILES, _BYTES = 256, 2**20
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""What NVIDIA's driver makes on Linux and on Windows' Linux: looking is cheaper than loading the driver's library."""
_LOGGER = logging.getLogger("sdengine")


@dataclass(frozen=True, kw_only=True)
class AutoOrder:
    """What ``auto`` goes by.

    Attributes:
        names: all engines, in the order in which they are tried.
        milliseconds: that an evaluation of the denoiser took, of the engines that were timed; empty where there was no
            choice, or nothing was timed.
        note: why nothing was timed although there was a choice; else None.

    """

    names: tuple[str, ...]
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    note: str | None = None


def auto_order(bundle: Bundle, *, precision: str | None, options: OpeningOptions) -> AutoOrder:
    """Return the order of engines for a bundle on this machine.

    The first time takes as long as opening each engine and some evaluations on it.

    Args:
        bundle: the bundle.
        precision: of the graphs, or None: what each engine prefers.
        options: that engines will be opened with.

    Raises:
        UsageError: the environment variable :data:`AUTO` says neither of the two.
        DamagedBundleError: a file that an engine reads is not what was exported.

    """
    policy = os.environ.get(AUTO) or "measured"
    if policy not in ("measured", "exported"):
        raise UsageError(f"{AUTO}={policy!r} is neither measured nor exported")
    names = exported_first(bundle)
    if policy == "exported" or _DENOISER not in bundle.manifest.components:
        return AutoOrder(names=tuple(names))
    if options.device != "cpu" and (of_gpus := _on_gpu(bundle, names)):
        return AutoOrder(names=tuple(dict.fromkeys([*of_gpus, *names])))
    able = [name for name in names if _may_run(bundle, name, precision)]
    if len(able) < 2:
        return AutoOrder(names=tuple(names))
    file, times = _remembered(bundle, able, precision, options)
    if {*times} != {*able}:
        able = [name for name in able if ENGINES[name].module.unavailable() is None]
        if len(able) < 2:
            return AutoOrder(names=tuple(names))
        if {*times} != {*able}:
            if (note := _too_large(bundle)) is not None:
                return AutoOrder(names=tuple(names), note=note)
            if _weights(bundle) >= _LARGE:
                _LOGGER.warning(
                    "timing %s for this bundle, once on this machine: auto takes the fastest", " and ".join(able)
                )
            times = dict(_timed(bundle, able, precision, options))
            _remember(file, times)
    timed = {name: took for name, took in times.items() if took < math.inf}
    # Engines that the bundle was exported for and that cannot run here are tried first all the same: the result then
    # says why they were skipped.
    absent = [name for name in names if name in bundle.manifest.engines and name not in timed]
    order = dict.fromkeys([*absent, *sorted(timed, key=lambda name: timed[name]), *names])
    return AutoOrder(names=tuple(order), milliseconds=timed)


def _on_gpu(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """Return the engines that run this bundle on a GPU of this machine: plans, ONNX Runtime, else torch."""
    built = {file.engine for file in bundle.manifest.built if file.component == _DENOISER}
    own = [n for n in names if n in built or (n == "onnxruntime-cuda" and _version("onnxruntime-gpu") is not None)]
    torch = ENGINES["torch"].module
    if not own and torch.unavailable() is not None:
        return []  # CUDA's driver need not be asked
    if not any(os.path.exists(file) for file in _DRIVERS) or no_gpu() is not None:
        return []
    return own or (["torch"] if torch.finds_gpu() else [])


def _may_run(bundle: Bundle, name: str, precision: str | None) -> bool:
    """Whether an engine runs on CPUs and has a graph, and is no mere fallback; its library is not imported."""
    kind = ENGINES[name]
    if kind.reference and name not in bundle.manifest.engines:
        return False
    graphs = bundle.component(_DENOISER).graphs
    held = graphs if precision is None or precision not in graphs else [precision]
    return "cpu" in kind.devices and any(p in kind.precisions for p in held)


def _too_large(bundle: Bundle) -> str | None:
    """Say that the denoiser is too large to be opened once more than it must be; None if it is not."""
    weights, free = _weights(bundle), free_host_memory()
    if free is None or _ROOM * weights <= free:
        return None
    return (
        f"the engines were not timed, since {free / 1e9:.1f} GB of free memory are little for weights of "
        f"{weights / 1e9:.1f} GB: auto takes the first that the bundle was exported for"
    )


def _weights(bundle: Bundle) -> int:
    """Return the bytes of the denoiser's weights."""
    manifest = bundle.manifest
    return manifest.files[manifest.networks[bundle.component(_DENOISER).network].weights].bytes


def _timed(
    bundle: Bundle, names: Sequence[str], precision: str | None, options: OpeningOptions
) -> Iterator[tuple[str, float]]:
    """Yield what an evaluation takes, in milliseconds, of each engine that can be opened."""
    for name in names:
        try:
            yield name, _milliseconds(bundle, name, precision, options)
        except DamagedBundleError:
            raise
        except SdengineError:
            yield name, math.inf  # why it cannot run is said when it would be opened


def _milliseconds(bundle: Bundle, name: str, precision: str | None, options: OpeningOptions) -> float:
    own = OpeningOptions(threads=options.threads)
    if precision is None:
        precision = default_precision(bundle, _DENOISER, name, device=None, named=False)
    with closing(open_engine(bundle, _DENOISER, engine=name, precision=precision, options=own).engine) as engine:
        _, arrays = sample(_of_one_size(engine.spec), 0)
        inputs = {key: array.astype(engine.spec.input(key).dtype) for key, array in arrays.items()}
        run(engine, inputs)
        took: list[float] = []
        while len(took) < _LEAST or (sum(took) < _SECONDS and len(took) < _MOST):
            started = time.perf_counter()
            run(engine, inputs)
            took.append(time.perf_counter() - started)
    return min(took) * 1e3


def _of_one_size(spec: ComponentSpec) -> ComponentSpec:
    """Return the spec at the sizes that it is optimised for, but images no larger than :data:`_SIDE`."""
    axes = {}
    for axis, allowed in spec.axes.items():
        length = max(allowed.min, min(allowed.opt, _SIDE)) if axis in "hw" else allowed.opt
        axes[axis] = AxisRange(length, length, length)
    return msgspec.structs.replace(spec, axes=axes)


def _remembered(
    bundle: Bundle, names: Sequence[str], precision: str | None, options: OpeningOptions
) -> tuple[Any, dict[str, float]]:
    """Return the file that remembers, None where there can be none, and what it holds."""
    component = bundle.component(_DENOISER)
    graphs = {p: bundle.manifest.files[graph.file].sha256 for p, graph in component.graphs.items()}
    measured = {
        "engines": sorted(names),
        "graphs": graphs,
        "weights": bundle.weights(component.network).base,
        "processor": processor(),
        "precision": precision,
        "threads": options.threads,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
    }
    key = hashlib.sha256(msgspec.json.encode(measured, order="deterministic")).hexdigest()
    try:
        file = cached_file("fastest", f"{key[:32]}.json")
        content = read_cached(file)
        times = {} if content is None else msgspec.json.decode(content, type=dict[str, float | None])
    except CacheUnusableError:
        return None, {}
    except msgspec.MsgspecError:
        times = {}
    return file, {name: math.inf if took is None else took for name, took in times.items() if name in names}


def _remember(file: Any, times: Mapping[str, float]) -> None:
    if file is None:
        return
    try:
        write_cached(file, msgspec.json.encode({n: took if took != math.inf else None for n, took in times.items()}))
    except CacheUnusableError:
        return  # it is timed again at the next start
    prune(file.parent, "*.json", files=_FILES, size=_BYTES)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
