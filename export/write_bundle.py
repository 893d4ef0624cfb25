"""Writes a bundle: one network at a time, so that memory follows the largest tensor, not the checkpoint."""

import math
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import msgspec
import onnx_ir as ir
import torch

from ..engines.argument_types import with_checked_types
from ..engines.bundle.bundle import MANIFEST, SCHEDULER, Bundle, file_sha256, resolve_config
from ..engines.bundle.foreign_files import foreign_files
from ..engines.bundle.manifest import (
    SCHEMA,
    Component,
    FileRecord,
    Graph,
    Manifest,
    MergedLora,
    Network,
    Verification,
    manifest_text,
)
from ..engines.bundle.whole_folder import check_target, whole_folder
from ..engines.errors import SdengineError, UsageError
from ..engines.families import FAMILIES
from ..engines.lora import LoraSource, sources_of
from ..engines.nets.config import UNetConfig
from ..engines.nets.movq_config import MoVQConfig
from ..engines.nets.network_config import NetworkConfig
from ..engines.nets.text_config import TextEncoderConfig
from ..engines.nets.vae_config import VAEConfig
from ..engines.parity import Verify, check_verify, verify_bundle
from ..engines.registry import ENGINES
from ..engines.trt import BuildOptions, build_engines, check_options
from .apart import check_apart
from .checkpoint import Checkpoint, CheckpointComponent, open_checkpoint, open_controlnet
from .checkpoint.finite import check_finite
from .contrib import rewrite_for_onnxruntime
from .export_options import export_options
from .loras import with_loras
from .plan import (
    PRECISION_DTYPES,
    ComponentPlan,
    check_controlnets,
    controlnet_name,
    plan_components,
    precisions_for,
)
from .preview_map import fit_preview
from .sizes import Sizes, axes_for, parse_batch, parse_sizes
from .trace import trace_component
from .weights_file import dtype_name, external_tensors, place_weights

__all__ = ["Report", "export_bundle"]

Report = Callable[[str], None]
"""Told what is being done, a line at a time."""

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """An export, resolved: nothing is optional any more."""

    checkpoint: Checkpoint
    controlnets: tuple[CheckpointComponent, ...]
    loras: list[MergedLora]
    components: tuple[ComponentPlan, ...]
    configs: dict[str, NetworkConfig]
    engines: tuple[str, ...]
    sizes: Sizes
    default_size: tuple[int, int]
    options: list[str]


@with_checked_types
def export_bundle(
    checkpoint: str | Path,
    output: str | Path,
    *,
    engines: Sequence[str] = ("onnxruntime",),
    precision: str = "auto",
    sizes: str | None = None,
    batch: str = "1..4",
    controlnets: Sequence[str | Path] = (),
    loras: Sequence[LoraSource] = (),
    verify: Verify = "fast",
    stop_after: Literal["graphs"] | None = None,
    vae_tiling: bool = False,
    build: BuildOptions | None = None,
    link_weights: bool = True,
    overwrite: bool = False,
    report: Report | None = None,
    prior: str | Path | None = None,
    vae: str | Path | None = None,
    tokenizer: str | Path | None = None,
    config: str | Path | None = None,
    prediction_type: str | None = None,
    safety_checker: bool | None = None,
    variant: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
) -> Bundle:
    """Export a checkpoint to a bundle.

    Args:
        checkpoint: a folder, a file, a Hub id or ``demo``; see :func:`~sdengine.export.checkpoint.open_checkpoint`.
        output: the folder to write.
        engines: which engines the bundle is for; ``torch`` needs no graphs of its own but gets them too.
        precision: ``auto`` (float16 for TensorRT, float32 elsewhere), ``fp32``, ``bf16`` or ``fp16``.
        sizes: ``1024x1024,832x1216`` or ``512..1024``, in pixels; None means half to twice the native size.
        batch: images generated at once, ``4`` or ``1..4``.
        controlnets: ControlNet checkpoints to add; those that the checkpoint itself brings come before them.
        loras: to merge into the weights, in this order: files, or pairs of a file and its strength.
        verify: compare every component with torch at one (``fast``) or three (``full``) untraced shapes, or not.
        stop_after: ``graphs`` compiles nothing ahead of time, so that every precision can be exported anywhere; else
            the plans of ``tensorrt`` and ``tensorrt-rtx`` are built.
        vae_tiling: compile the VAE for tiles of the size that it was trained on, so that plans and compiled variants
            stay small: larger images are always decoded and encoded in tiles.
        build: options of those plans.
        link_weights: hard-link large weights files that need no change; a copy takes space, but onnx's own checker
            refuses external data with more than one hard link.
        overwrite: replace a bundle of that name; a folder in which anything else lies is refused.
        report: told about each step.
        prior: see :func:`~sdengine.export.checkpoint.open_checkpoint`, as for all that follow.
        vae: another VAE.
        tokenizer: folder with the tokenizers, for a single file.
        config: folder with configs, for a single file.
        prediction_type: what the UNet predicts, where the checkpoint does not say it or is wrong.
        safety_checker: export the checkpoint's safety checker, or leave it out; None exports it where there is one.
        variant: which weights of a folder.
        revision: branch, tag or commit on the Hub.
        token: access token for the Hub.
        offline: do not use the network.

    Returns:
        The bundle, opened.

    Raises:
        UsageError: an option cannot be met, or the output is, holds or lies in what is read, or holds other files.
        CheckpointError: the checkpoint cannot be read, or a weight is NaN or infinite.
        ExportError: a component cannot be traced, or differs from torch.
        EngineError: a plan cannot be built; the bundle with its graphs is there.

    """
    say = report or (lambda _: None)
    check_verify(verify)
    build = build or BuildOptions()
    planned = _planned_engines(engines, stop_after, build)
    # Both before anything is downloaded.
    check_apart(
        output,
        (
            *(() if checkpoint == "demo" else (checkpoint,)),
            *controlnets,
            *(path for path, _ in sources_of(loras)),
            prior,
            vae,
            tokenizer,
            config,
        ),
    )
    check_target(Path(output), overwrite=overwrite, foreign=foreign_files)
    opening = {
        "prior": prior,
        "vae": vae,
        "tokenizer": tokenizer,
        "config": config,
        "prediction_type": prediction_type,
        "safety_checker": safety_checker,
        "variant": variant,
        "revision": revision,
        "token": token,
        "offline": offline,
    }
    used = export_options(
        {
            "engine": engines,
            "precision": None if precision == "auto" else precision,
            "sizes": sizes,
            "batch": batch,
            "controlnet": controlnets,
            "lora": sources_of(loras),
            **{name: value for name, value in opening.items() if name != "token"},
            "no_safety_checker": safety_checker is False,
            "verify": None if verify == "fast" else verify,
            "stop_after": stop_after,
            "vae_tiling": "on" if vae_tiling else None,
            "copy_weights": not link_weights,
        },
        build,
    )
    request = _resolve(checkpoint, engines, precision, sizes, batch, controlnets, loras, vae_tiling, opening, used)
    for note in request.checkpoint.notes:
        say(f"note: {note}")
    check_apart(output, _files_read(request))  # a folder may hold links to files elsewhere
    with whole_folder(Path(output), overwrite=overwrite, foreign=foreign_files) as folder:
        manifest = _write(request, folder, say, link_weights)
        manifest = msgspec.structs.replace(manifest, preview=fit_preview(Bundle(folder)))
        results = []
        for result in verify_bundle(Bundle(folder), request.engines, verify, say):
            say(f"verified {result.component} ({result.precision}, {result.engine}): {result.relative_error:.1e}")
            results.append(result)
        _write_manifest(folder, manifest, results)
    for engine in planned:
        build_engines(output, engine, options=build, report=say)
    return Bundle(output)


def _planned_engines(engines: Sequence[str], stop_after: str | None, options: BuildOptions) -> list[str]:
    """Return the engines whose plans will be built, after checking that they can be: the work before takes long."""
    if stop_after not in (None, "graphs"):
        raise UsageError(f"stop_after={stop_after!r}: only 'graphs' is known")
    kinds = {name: ENGINES[name] for name in engines if name in ENGINES}
    planned = [] if stop_after == "graphs" else [name for name, kind in kinds.items() if kind.builds_plans]
    if not planned and options != BuildOptions():
        raise UsageError(
            "options of plans were given, but no plans are built: name a tensorrt engine or leave them out"
        )
    for name in planned:
        try:
            check_options(name, options)
        except SdengineError as error:
            raise type(error)(f"{error}. With --stop-after graphs the bundle is written without plans") from error
    return planned


def _resolve(
    source: str | Path,
    engines: Sequence[str],
    precision: str,
    sizes: str | None,
    batch: str,
    controlnets: Sequence[str | Path],
    loras: Sequence[LoraSource],
    vae_tiling: bool,
    opening: dict[str, Any],
    options: list[str],
) -> _Request:
    if not engines:
        raise UsageError("name at least one engine to export for")
    precisions = precisions_for(engines, precision)
    checkpoint, own = open_checkpoint(source, **opening).apart()
    added = (*own, *(open_controlnet(c) for c in controlnets))
    checkpoint, merged = with_loras(checkpoint, loras)
    draft = _draft(checkpoint, added)
    configs = {name: resolve_config(draft, name) for name in draft.networks}
    check_controlnets(configs)
    if added and "controlnets" not in FAMILIES[checkpoint.family].conditions:
        raise UsageError(f"controlnets: {FAMILIES[checkpoint.family].label} has none; its hint is part of the decoder")
    unet, vae = configs["unet"], configs[FAMILIES[checkpoint.family].autoencoder]
    assert isinstance(unet, UNetConfig) and isinstance(vae, VAEConfig | MoVQConfig)
    tokens = max((c.tokens for c in configs.values() if isinstance(c, TextEncoderConfig)), default=77)
    sample: Any = checkpoint.components["unet"].config.get("sample_size") or 64
    height, width = (sample, sample) if isinstance(sample, int) else sample
    multiple = FAMILIES[checkpoint.family].size_multiple(vae.factor, len(unet.down))
    parsed = parse_sizes(sizes, native=max(height, width) * vae.factor, multiple=multiple)
    axes = axes_for(parsed, parse_batch(batch), factor=vae.factor, tokens=tokens)
    default = (
        min(max(height * vae.factor, parsed.height.min), parsed.height.max),
        min(max(width * vae.factor, parsed.width.min), parsed.width.max),
    )
    for part in (*checkpoint.components.values(), *added):
        check_finite(part)
    return _Request(
        checkpoint=checkpoint,
        controlnets=added,
        loras=merged,
        components=tuple(plan_components(checkpoint, added, configs, axes, precisions, vae_tiling=vae_tiling)),
        configs=configs,
        engines=tuple(dict.fromkeys(engines)),
        sizes=parsed,
        default_size=parsed.listed[0] if parsed.listed else default,
        options=options,
    )


def _files_read(request: _Request) -> list[Path]:
    checkpoint = request.checkpoint
    components = (*checkpoint.components.values(), *request.controlnets)
    return [*(c.file for c in components if c.file is not None), *checkpoint.tokenizers.values()]


def _draft(checkpoint: Checkpoint, controlnets: Sequence[CheckpointComponent]) -> Manifest:
    """Return the manifest without anything that takes work."""
    sources = dict(checkpoint.components) | {controlnet_name(i): c for i, c in enumerate(controlnets)}
    networks = {
        name: Network(
            class_name=source.class_name,
            config=source.config,
            weights=f"components/{name}/weights.safetensors",
            dtype=dtype_name(source, None),
            parameters=sum(math.prod(tensor.shape) for tensor in source.tensors.values()),
        )
        for name, source in sources.items()
    }
    return Manifest(
        schema=SCHEMA,
        family=checkpoint.family,
        source=Path(checkpoint.source).name,
        engines=[],
        networks=networks,
        components={},
        controlnets=[controlnet_name(i) for i in range(len(controlnets))],
        tokenizers={name: name for name in checkpoint.tokenizers},
        pad_tokens=checkpoint.pad_tokens,
        model_index=checkpoint.model_index,
        default_size=(0, 0),
        sizes=[],
        built=[],
        verification=[],
        tools=_tools(),
        notes=list(checkpoint.notes),
        files={},
    )


def _write(request: _Request, folder: Path, say: Report, link: bool) -> Manifest:
    """Write everything; the manifest comes last, so that a folder without one is not a bundle."""
    draft = _draft(request.checkpoint, request.controlnets)
    networks = dict(draft.networks)
    components = {}
    for network, plans in groupby(request.components, key=lambda plan: plan.network.name):
        planned = list(plans)
        source, store = planned[0].network.source, planned[0].network.store
        weights = folder / networks[network].weights
        linked = place_weights(source, weights, store=store, link=link)
        say(f"{network}: weights {'linked' if linked else 'written'}, {weights.stat().st_size / 1e6:.1f} MB")
        networks[network] = msgspec.structs.replace(networks[network], dtype=dtype_name(source, store))
        external = external_tensors(weights)
        for plan in planned:
            components[plan.name] = _trace(plan, weights.parent, folder, external, say)
    for name, path in request.checkpoint.tokenizers.items():
        _copy_tokenizer(path, folder / name)
    for name, settings in ({SCHEDULER: request.checkpoint.scheduler} | request.checkpoint.settings).items():
        (folder / name).write_bytes(_json(settings))
    manifest = msgspec.structs.replace(
        draft,
        engines=list(request.engines),
        networks=networks,
        components=components,
        default_size=request.default_size,
        sizes=list(request.sizes.listed),
        loras=request.loras,
        exported_with=request.options,
        files=_file_records(folder),
    )
    _write_manifest(folder, manifest, [])
    return manifest


def _trace(
    plan: ComponentPlan, target: Path, folder: Path, external: dict[str, ir.ExternalTensor], say: Report
) -> Component:
    graphs = {}
    for precision, spec in plan.specs.items():
        dtype = getattr(torch, PRECISION_DTYPES[precision])
        model = trace_component(plan.kind, plan.network.config, spec, external, dtype=dtype)
        say(f"{plan.name}: traced in {precision}, {len(model.graph)} nodes")
        file = _write_graph(model, target / f"{plan.name}.{precision}.onnx", folder)
        # The kernels that ONNX Runtime contributes for CPUs compute in float32.
        differs = precision == "fp32" and rewrite_for_onnxruntime(model.graph)
        contrib = _write_graph(model, target / f"{plan.name}.{precision}.contrib.onnx", folder) if differs else None
        graphs[precision] = Graph(file=file, spec=spec, contrib=contrib)
    return Component(kind=plan.kind, network=plan.network.name, graphs=graphs)


def _write_graph(model: ir.Model, file: Path, folder: Path) -> str:
    file.write_bytes(ir.to_proto(model).SerializeToString())
    return file.relative_to(folder).as_posix()


def _copy_tokenizer(source: Path, target: Path) -> None:
    target.mkdir()
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def _file_records(folder: Path) -> dict[str, FileRecord]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST)
    return {f.relative_to(folder).as_posix(): FileRecord(sha256=file_sha256(f), bytes=f.stat().st_size) for f in files}


def _write_manifest(folder: Path, manifest: Manifest, results: list[Verification]) -> None:
    (folder / MANIFEST).write_bytes(manifest_text(msgspec.structs.replace(manifest, verification=results)))


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=1) + b"\n"


def _tools() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("sdengine", "torch", "onnx", "onnx-ir", "onnxruntime", "openvino", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
