"""Adds plans to a bundle."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ..bundle.bundle import Bundle
from ..bundle.whole_file import write_whole
from ..cuda.gpu import Gpu, free_memory, gpu_here
from ..errors import SdengineError, UsageError, nearest
from .add import add_plan
from .build_options import BuildOptions, targets_for
from .compile import compile_plan
from .library import Library, library_of
from .locked import locked
from .plan_record import PlanRecord, PlanSource, read_record
from .profiles import profiles_for, vae_factor

__all__ = ["BuildProgress", "BuiltPlan", "build_engines", "check_options"]

BuildProgress = Callable[[str, str, int, int], None]
"""Called with component, phase, steps done and steps of the phase."""

_PREFERRED = ("fp16", "bf16", "fp32")
_CACHE = "timing.cache"


@dataclass(frozen=True, kw_only=True)
class BuiltPlan:
    """A plan that the bundle holds now.

    Attributes:
        file: relative to the bundle.
        record: its description.
        reused: whether it was there already and still fits.

    """

    file: str
    record: PlanRecord
    reused: bool


@dataclass(frozen=True, kw_only=True)
class _Build:
    """A build, resolved."""

    bundle: Bundle
    library: Library
    version: str
    target: str
    targets: tuple[str, ...]
    options: BuildOptions
    workspace: int | None
    report: Callable[[str], None]
    progress: BuildProgress | None


def check_options(engine: str, options: BuildOptions) -> None:
    """Check, before long work, that plans with these options can be built here.

    Raises:
        UsageError: the engine or an option cannot be had.
        EngineUnavailableError: the library is not here.

    """
    library = library_of(engine)
    library.load()
    gpu = gpu_here()
    targets_for(library, options, gpu.generation if gpu else None)


def build_engines(
    bundle_path: str | Path,
    engine: str,
    *,
    options: BuildOptions | None = None,
    components: Sequence[str] = (),
    precision: str | None = None,
    report: Callable[[str], None] | None = None,
    progress: BuildProgress | None = None,
) -> list[BuiltPlan]:
    """Compile the components of a bundle and add the plans to it.

    A plan whose graph, weights, profiles, options, library and target are the same is reused. Each plan is in
    the manifest as soon as it is whole, so that what was built before a failure stays.

    Args:
        bundle_path: the bundle's folder.
        engine: ``tensorrt`` or ``tensorrt-rtx``.
        options: see :class:`~sdengine.engines.trt.build_options.BuildOptions`.
        components: which ones; all when empty.
        precision: of the graphs; None takes float16 where there is such a graph, else bfloat16, else float32.
        report: called with what is done, a line at a time.
        progress: called with how far a build is; what it raises stops the build and is raised here.

    Raises:
        UsageError: the engine, a component, an option or the precision cannot be had.
        BundleError: the bundle is missing or damaged.
        EngineUnavailableError: the library is not here.
        EngineError: a component cannot be compiled.
        SdengineError: the bundle cannot be written to, or the disk is full.

    """
    library, options = library_of(engine), options or BuildOptions()
    gpu = gpu_here()
    targets = targets_for(library, options, gpu.generation if gpu else None)
    bundle = Bundle(bundle_path)
    say = report or (lambda _: None)
    build = _Build(
        bundle=bundle,
        library=library,
        version=str(library.load().__version__),
        target=_target_name(library, options, targets, gpu),
        targets=targets if library.ahead_of_time else (),
        # in one order, so that the same targets give the same key
        options=msgspec.structs.replace(options, targets=targets if library.ahead_of_time else ()),
        workspace=_workspace(options, targets, gpu, say),
        report=say,
        progress=progress,
    )
    names = components or list(bundle.manifest.components)
    for name in names:
        if name not in bundle.manifest.components:
            known = bundle.manifest.components
            raise UsageError(f"the bundle has no component {name!r}; it has {', '.join(known)}{nearest(name, known)}")
    sources = [_source(build, name, precision) for name in names]
    folder = bundle.path / sources[0].folder
    try:
        with _locked_folder(folder, build.report):
            build = replace(build, bundle=Bundle(bundle_path))  # the other build may have added to it
            return [_reused(build, source) or _compiled(build, source) for source in sources]
    except OSError as error:
        raise SdengineError(f"plans could not be written to {folder}: {error.strerror or error}") from error


@contextlib.contextmanager
def _locked_folder(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Create and lock a folder; if it is empty in the end, as where a build fails, it is removed."""

    def waiting() -> None:
        say("another build for the same target is at work; waiting for it")

    with contextlib.ExitStack() as held:
        there = False
        while not there:  # another build that fails may remove it in between
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                there = held.enter_context(locked(folder, waiting=waiting))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
                folder.parent.rmdir()


def _target_name(library: Library, options: BuildOptions, targets: tuple[str, ...], gpu: Gpu | None) -> str:
    """Name what the plans run on; a plan of TensorRT is tied to the GPU's model unless built otherwise."""
    if library.ahead_of_time:
        return "+".join(targets)
    return "ampere-plus" if options.hardware_compatible or gpu is None else f"{gpu.generation}-{gpu.model}"


def _workspace(
    options: BuildOptions, targets: tuple[str, ...], gpu: Gpu | None, say: Callable[[str], None]
) -> int | None:
    """Return the limit of kernels' scratch memory: the option's, or what is free on the GPU that is built for.

    What is free changes from build to build, so the option is part of a plan's key, not this.
    """
    if options.workspace is not None or gpu is None or targets != (gpu.generation,):
        return options.workspace
    free = free_memory()
    say(f"workspace: {free / 2**20:.0f} MiB, what is free on the {gpu.model} now")
    return free


def _source(build: _Build, name: str, precision: str | None) -> PlanSource:
    bundle = build.bundle
    component = bundle.component(name)
    graphs = component.graphs
    if precision not in (None, *_PREFERRED):
        known = ", ".join(_PREFERRED)
        raise UsageError(f"unknown precision {precision!r}; there are {known}{nearest(str(precision), _PREFERRED)}")
    if precision is None or len(graphs) == 1:  # SDXL's VAE is in float32 in a bundle of float16
        precision = next(p for p in _PREFERRED if p in graphs)
    if precision not in graphs:
        again = bundle.export_command("--precision", precision)
        raise UsageError(
            f"the bundle holds {name} in {', '.join(graphs)}, not in {precision}; export it again: {again}"
        )
    files = bundle.manifest.files
    graph = graphs[precision]
    return PlanSource(
        engine=build.library.engine,
        version=build.version,
        target=build.target,
        component=name,
        precision=precision,
        graph=files[graph.file].sha256,
        weights=files[bundle.manifest.networks[component.network].weights].sha256,
        profiles=profiles_for(graph.spec, bundle.manifest.sizes, factor=vae_factor(bundle)),
        options=build.options,
    )


def _reused(build: _Build, source: PlanSource) -> BuiltPlan | None:
    """Return the plan if the bundle holds it unchanged."""
    if not any(built.file == source.file for built in build.bundle.manifest.built):
        return None
    record = read_record(build.bundle, source.file)
    if record.source.key != source.key:
        return None
    build.bundle.checked_file(source.file)
    build.report(f"{source.component}: the plan for {source.target} still fits")
    return BuiltPlan(file=source.file, record=record, reused=True)


def _compiled(build: _Build, source: PlanSource) -> BuiltPlan:
    bundle, name = build.bundle, source.component
    graph = bundle.graph(name, source.precision)
    bundle.checked_file(bundle.manifest.networks[bundle.component(name).network].weights)
    target = bundle.file(source.file)
    build.report(f"{name}: compiling the {source.precision} graph for {source.target}")
    progress = build.progress
    with write_whole(target) as partial:
        compiled = compile_plan(
            build.library,
            bundle.checked_graph(name, graph.file),
            graph.spec,
            source,
            partial,
            targets=build.targets,
            workspace=build.workspace,
            timing_cache=_timing_cache(bundle, source),
            progress=None if progress is None else lambda phase, done, steps: progress(name, phase, done, steps),
        )
    record = PlanRecord(
        source=source,
        seconds=round(compiled.seconds, 3),
        plan_bytes=compiled.size,
        weight_bytes=compiled.messages.weights,
        activation_bytes=compiled.messages.activation,
        workspace=build.workspace,
        layers=compiled.layers,
        warnings=compiled.messages.warnings,
    )
    for warning in record.warnings:
        build.report(f"{name}: {build.library.engine} warns: {warning}")
    contents = {} if compiled.timing_cache is None else {f"{source.folder}/{_CACHE}": compiled.timing_cache}
    add_plan(bundle, record, sha256=compiled.sha256, contents=contents)
    build.report(f"{name}: {compiled.size / 1e6:.1f} MB in {compiled.seconds:.1f} s")
    return BuiltPlan(file=source.file, record=record, reused=False)


def _timing_cache(bundle: Bundle, source: PlanSource) -> bytes:
    name = f"{source.folder}/{_CACHE}"
    if not source.options.timing_cache or name not in Bundle(bundle.path).manifest.files:
        return b""
    return Bundle(bundle.path).checked_file(name).read_bytes()
