"""Compiles one component to a plan."""

import hashlib
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..spec import ComponentSpec
from .build_options import BuildOptions
from .failure import build_error
from .interrupts import interrupts_stop
from .library import Library
from .messages import Messages, Progress, logger_for, monitor_for
from .parsed_network import layers_by_precision, mark_outputs, parsed_network
from .plan_record import PlanSource
from .profiles import shapes_of

__all__ = ["Compiled", "compile_plan"]


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """The result of a build.

    Attributes:
        sha256: of the plan.
        size: of the plan, in bytes.
        seconds: from the first byte of the graph to the last of the plan.
        layers: see :func:`~sdengine.engines.trt.parsed_network.layers_by_precision`.
        messages: what the library said.
        timing_cache: for the next build, where the library has one.

    """

    sha256: str
    size: int
    seconds: float
    layers: dict[str, dict[str, int]]
    messages: Messages
    timing_cache: bytes | None


def compile_plan(
    library: Library,
    graph: Path,
    spec: ComponentSpec,
    source: PlanSource,
    target: Path,
    *,
    targets: tuple[str, ...],
    workspace: int | None = None,
    timing_cache: bytes = b"",
    progress: Progress | None = None,
    extra_outputs: Collection[str] = (),
) -> Compiled:
    """Compile a graph.

    Args:
        library: what compiles it.
        graph: the ONNX file; its weights are beside it.
        spec: of the graph.
        source: profiles and options.
        target: the file to write the plan to.
        targets: GPU generations, for a library that builds ahead of time.
        workspace: most bytes of scratch memory that a kernel may use; None leaves it to the library.
        timing_cache: of earlier builds for the same GPU and version.
        progress: called with how far the build is; what it raises stops the build and is raised here.
        extra_outputs: values to make outputs of, in place of the graph's, for debugging; see :func:`mark_outputs`.
            Such a plan may allocate for itself.

    Raises:
        EngineUnavailableError: the library cannot be loaded.
        EngineError: the graph cannot be parsed or compiled.

    """
    module = library.load()
    messages = Messages()
    started = time.perf_counter()
    builder = module.Builder(logger_for(module, messages))
    with interrupts_stop(messages):
        network, parser = parsed_network(module, builder, graph, spec.name, library.engine, messages)
        if extra_outputs:
            mark_outputs(module, network, extra_outputs)
        config = builder.create_builder_config()
        _configure(module, config, source.options, targets, workspace, allocates=bool(extra_outputs))
        for profile in source.profiles:
            shapes = builder.create_optimization_profile()
            for name, ends in shapes_of(spec, profile).items():
                shapes.set_shape(name, *ends)
            config.add_optimization_profile(shapes)
        if source.options.timing_cache:
            config.set_timing_cache(config.create_timing_cache(timing_cache), ignore_mismatch=False)
        monitor = monitor_for(module, progress or _unseen, messages)
        config.progress_monitor = monitor
        digest, size = _write_plan(module, builder, network, config, target)
    if messages.stopped_by is not None:
        raise messages.stopped_by
    if size == 0:
        names = [network.get_layer(i).name for i in range(network.num_layers)]
        largest = ", ".join(f"{name} {list(ends[2])}" for name, ends in shapes_of(spec, source.profiles[-1]).items())
        raise build_error(
            spec.name,
            library.engine,
            messages.errors,
            layers=names,
            largest=largest,
            options=source.options,
            workspace=workspace,
        )
    timings = bytes(memoryview(config.get_timing_cache().serialize())) if source.options.timing_cache else None
    layers = layers_by_precision(network)
    del parser  # it owns the weights: until here the network needed them
    return Compiled(
        sha256=digest,
        size=size,
        seconds=time.perf_counter() - started,
        layers=layers,
        messages=messages,
        timing_cache=timings,
    )


def _unseen(phase: str, done: int, steps: int) -> None:
    """Ignore progress: the monitor is there so that an interrupt can stop the build."""


def _configure(
    module: Any, config: Any, options: BuildOptions, targets: tuple[str, ...], workspace: int | None, *, allocates: bool
) -> None:
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # layers and formats for the engine inspector
    if workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, workspace)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.weight_streaming:
        config.set_flag(module.BuilderFlag.WEIGHT_STREAMING)
    if options.refit:
        config.set_flag(module.BuilderFlag.REFIT)
    if options.strip:
        config.set_flag(module.BuilderFlag.STRIP_PLAN)  # alone it implies REFIT_IDENTICAL
    # Then we provide all memory, which capturing a launch requires; TensorRT-RTX has the flag since release 1.2. Not
    # with streamed weights: the library allocates for them as it runs, so such a plan is not captured.
    flag = getattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if flag is not None and not options.weight_streaming and not allocates:
        config.set_flag(flag)
    if options.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if targets:
        config.num_compute_capabilities = len(targets)
        for i, target in enumerate(targets):
            config.set_compute_capability(getattr(module.ComputeCapability, target.upper()), i)


def _write_plan(module: Any, builder: Any, network: Any, config: Any, target: Path) -> tuple[str, int]:
    """Build into a file; returns SHA-256 and size, 0 where the build failed.

    With a stream the plan is never held in memory as a whole; TensorRT has streams since 10.13.

    Raises:
        OSError: the file could not be written.

    """
    digest = hashlib.sha256()
    failed: list[OSError] = []
    with target.open("wb") as file:
        if not hasattr(builder, "build_serialized_network_to_stream"):
            plan = builder.build_serialized_network(network, config)
            if plan is not None:
                digest.update(plan)
                file.write(plan)
            return digest.hexdigest(), file.tell()

        class Writer(module.IStreamWriter):  # type: ignore[misc]
            def __init__(self) -> None:
                module.IStreamWriter.__init__(self)

            def write(self, data: bytes) -> int:
                digest.update(data)
                try:
                    return file.write(data)
                except OSError as error:  # the library would print it, and say of itself that it failed
                    failed.append(error)
                    return 0

        done = builder.build_serialized_network_to_stream(network, config, Writer())
        if failed:
            raise failed[0]
        return digest.hexdigest(), file.tell() if done else 0
