"""Bundles with plans of the stand-in."""

import hashlib
import json
from pathlib import Path

import msgspec
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.manifest import Manifest
from sdengine.engines.trt import BuildOptions
from sdengine.engines.trt.add import add_plan
from sdengine.engines.trt.locked import rewrite_manifest
from sdengine.engines.trt.plan_record import PlanRecord, PlanSource
from sdengine.engines.trt.profiles import profiles_for, shapes_of, vae_factor

from ..bundles import copy_of
from .library import RTX_VERSION, VERSION

__all__ = ["TARGET", "with_plans"]

TARGET = "sm89-NVIDIA-Stand-in-4090"


def with_plans(
    kind: str,
    folder: Path,
    *,
    sizes: tuple[tuple[int, int], ...] = (),
    target: str = TARGET,
    version: str = VERSION,
    engine: str = "tensorrt",
    options: BuildOptions | None = None,
    controlnets: int = 0,
    without: tuple[str, ...] = (),
) -> Path:
    """Return a copy of a tiny bundle that holds a plan of every component but some.

    Plans of the stand-in are computed from the plain graphs. So that what they give can be compared bit by bit, the
    copy does not name the graphs in ONNX Runtime's own operators, which round elsewhere.
    """
    options = options or BuildOptions()
    if engine == "tensorrt-rtx":
        target, version = target.split("-")[0], RTX_VERSION
    path = copy_of(kind, folder, precision="fp32", sizes=sizes, controlnets=controlnets)
    rewrite_manifest(path, _without_contrib)
    bundle = Bundle(path)
    for name, component in bundle.manifest.components.items():
        if name in without:
            continue
        graph = component.graphs["fp32"]
        files = bundle.manifest.files
        source = PlanSource(
            engine=engine,
            version=version,
            target=target,
            component=name,
            precision="fp32",
            graph=files[graph.file].sha256,
            weights=files[bundle.manifest.networks[component.network].weights].sha256,
            profiles=profiles_for(graph.spec, bundle.manifest.sizes, factor=vae_factor(bundle)),
            options=options,
        )
        profiles = [shapes_of(graph.spec, profile) for profile in source.profiles]
        plan = {"component": name, "graph": str(path / graph.file), "profiles": profiles}
        plan |= {"refittable": options.refit or options.strip, "stripped": options.strip}
        plan |= {"streamable": 10_000 if options.weight_streaming else 0}
        data = json.dumps(plan).encode()
        bundle.file(source.file).parent.mkdir(parents=True, exist_ok=True)
        bundle.file(source.file).write_bytes(data)
        record = PlanRecord(
            source=source,
            seconds=0.0,
            plan_bytes=len(data),
            weight_bytes=None,
            activation_bytes=None,
            layers={},
            warnings=[],
        )
        add_plan(bundle, record, sha256=hashlib.sha256(data).hexdigest(), contents={})
    return path


def _without_contrib(manifest: Manifest) -> Manifest:
    replace = msgspec.structs.replace
    components = {
        name: replace(component, graphs={p: replace(graph, contrib=None) for p, graph in component.graphs.items()})
        for name, component in manifest.components.items()
    }
    return replace(manifest, components=components)
