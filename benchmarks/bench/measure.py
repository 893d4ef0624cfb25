"""Measures a bundle: a reference, then rounds of fresh processes in which the engines take turns."""

import datetime
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np

from ...engines.bundle.bundle import MANIFEST, Bundle, file_sha256
from ...engines.errors import EngineError
from ...engines.registry import ENGINES
from ...runtime.request.resolve import resolve
from .environment import environment_here
from .figure import Absent, Figure, figure_of
from .load import load_calls, load_cases
from .process_messages import Cold, Done, ProcessJob
from .published import published_for
from .report import (
    SCHEMA,
    BundleRecord,
    Case,
    ColdStart,
    EngineReport,
    LoadCase,
    MemoryFigures,
    Reference,
    ReferenceImage,
    Report,
    SizeChange,
    Skipped,
    Stages,
    UsedSettings,
)
from .sample_images import U8, difference_between, sample_of
from .settings import Settings, cases_of, probe_size, request_for
from .start_process import run_in_fresh_process

__all__ = ["Progress", "bundle_record", "calls_in_all", "measure"]

Progress = Callable[[str], None]
"""Called after each call of a pipeline, with its label."""

_REFERENCE = "torch:fp32"


def bundle_record(bundle: Bundle) -> BundleRecord:
    """Describe a bundle so that it can be recognised."""
    manifest = bundle.manifest
    weights = [manifest.files[network.weights].sha256 for _, network in sorted(manifest.networks.items())]
    return BundleRecord(
        source=manifest.source,
        family=manifest.family,
        sha256=file_sha256(bundle.path / MANIFEST),
        weights_sha256=hashlib.sha256(" ".join(weights).encode()).hexdigest(),
        bytes=sum(record.bytes for record in manifest.files.values()),
        unet_parameters=manifest.networks["unet"].parameters,
        default_size=manifest.default_size,
    )


def calls_in_all(settings: Settings, bundle: Bundle) -> int:
    """Count the calls of pipelines that a measurement makes."""
    sizes = len(settings.sizes)
    others = sizes - 1 or int(probe_size(settings, bundle) is not None)
    visits = 2 * (others + 1) if others else 0
    cases = sizes * len(settings.steps) * len(settings.batches)
    reference_calls = sizes * len(settings.steps) if settings.reference and _reference_reason() is None else 0
    of_round = 1 + visits + cases * (settings.warmup + settings.runs)
    return reference_calls + len(settings.engines) * (settings.rounds * of_round + load_calls(settings))


def measure(
    bundle: Bundle, settings: Settings, *, left_out: Mapping[str, str], progress: Progress = lambda label: None
) -> Report:
    """Measure.

    Args:
        bundle: what is measured.
        settings: how.
        left_out: engines that are not measured, with their reasons.
        progress: see :data:`Progress`.

    Raises:
        EngineError: an engine failed; names it.

    """
    environment = environment_here()
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    cases = list(cases_of(settings))
    record = bundle_record(bundle)
    with tempfile.TemporaryDirectory(prefix="sdengine-bench-") as folder:
        reference, expected = _reference(bundle, settings, Path(folder), progress)
        answers: dict[str, list[Done]] = {engine: [] for engine in settings.engines}
        images: dict[str, list[U8]] = {}
        for i in range(settings.rounds):
            for number, engine in enumerate(settings.engines):
                images_folder = Path(folder) / str(number)
                if i == 0:
                    images_folder.mkdir()
                job = _job(bundle, engine, settings, "measure", images_folder if i == 0 else None)
                tick = _prefixed(f"{engine}, round {i + 1} of {settings.rounds}", progress)
                answers[engine].append(run_in_fresh_process(job, tick))
                if i == 0:
                    images[engine] = [np.load(images_folder / f"{case}.npy") for case in range(len(cases))]
        load = {}
        for engine in settings.engines:
            on_cpu = answers[engine][0].components["denoiser"].device == "cpu"
            tick = _prefixed(f"{engine}, under load", progress)
            load[engine] = load_cases(bundle, engine, settings, on_cpu=on_cpu, tick=tick)
        return Report(
            schema=SCHEMA,
            sdengine=version("sdengine"),
            created=created,
            bundle=record,
            settings=settings,
            environment=environment,
            engines=[
                _engine_report(engine, done, settings, images[engine], expected, load[engine])
                for engine, done in answers.items()
            ],
            skipped=[Skipped(engine=engine, reason=reason) for engine, reason in left_out.items()],
            reference=reference,
            published=published_for(
                record.family,
                record.unet_parameters,
                cases,
                guided=settings.guidance_scale is None or settings.guidance_scale > 1,
            ),
            used=_used(bundle, settings),
        )


def _used(bundle: Bundle, settings: Settings) -> UsedSettings:
    """Return what the settings that were left to the bundle came to."""
    job = resolve(request_for(settings, *next(cases_of(settings))), bundle)
    scheduler = settings.scheduler or str(bundle.scheduler().get("_class_name"))
    return UsedSettings(guidance_scale=job.guidance_scale, scheduler=scheduler)


def _job(
    bundle: Bundle, engine: str, settings: Settings, task: Literal["measure", "images"], images: Path | None
) -> ProcessJob:
    return ProcessJob(
        bundle=str(bundle.path),
        engine=engine,
        settings=settings,
        task=task,
        images=None if images is None else str(images),
        started=0.0,
    )


def _prefixed(where: str, progress: Progress) -> Progress:
    return lambda label: progress(f"{where}: {label}")


def _reference_reason() -> str | None:
    reason: str | None = ENGINES["torch"].module.unavailable()
    return reason


def _reference(
    bundle: Bundle, settings: Settings, folder: Path, progress: Progress
) -> tuple[Reference | Absent, dict[tuple[tuple[int, int], int], U8] | Absent]:
    """Generate with torch in float32; return the record, and images by size and steps."""
    reason = _reference_reason() if settings.reference else "it was switched off with --no-reference"
    if reason is not None:
        return Absent(reason=reason), Absent(reason=reason)
    images_folder = folder / "reference"
    images_folder.mkdir()
    try:
        done = run_in_fresh_process(
            _job(bundle, _REFERENCE, settings, "images", images_folder), _prefixed("float32 torch", progress)
        )
    except EngineError as error:
        raise EngineError(f"{error}\n(this is the reference for the images; --no-reference skips it)") from error
    most = max(settings.batches)
    images: dict[tuple[tuple[int, int], int], U8] = {
        (size, steps): np.load(images_folder / f"{i}.npy")
        for i, (size, steps, batch) in enumerate(cases_of(settings))
        if batch == most
    }
    samples = [
        ReferenceImage(height=size[0], width=size[1], steps=steps, image=sample_of(batch_images[0], settings.seed))
        for (size, steps), batch_images in images.items()
    ]
    return Reference(version=done.version, device=done.components["denoiser"].device, images=samples), images


def _engine_report(
    engine: str,
    rounds: Sequence[Done],
    settings: Settings,
    images: Sequence[U8],
    expected: Mapping[tuple[tuple[int, int], int], U8] | Absent,
    load: list[LoadCase],
) -> EngineReport:
    first = rounds[0]
    return EngineReport(
        engine=engine,
        version=first.version,
        components=first.components,
        skipped=first.skipped,
        warnings=list(dict.fromkeys(warning for done in rounds for warning in done.warnings)),
        cold_start=_cold_start(rounds),
        size_changes=_size_changes(rounds),
        memory=MemoryFigures(**{name: _memory(rounds, name) for name in MemoryFigures.__struct_fields__}),
        clocks=[clocks for done in rounds for clocks in done.clocks],
        cases=[_case(i, case, rounds, settings, images[i], expected) for i, case in enumerate(cases_of(settings))],
        load=load,
    )


def _cold_start(rounds: Sequence[Done]) -> ColdStart:
    colds = [done.cold for done in rounds if done.cold is not None]
    return ColdStart(
        **{name: figure_of("ms", [[getattr(cold, name)] for cold in colds]) for name in Cold.__struct_fields__}
    )


def _size_changes(rounds: Sequence[Done]) -> list[SizeChange] | Absent:
    visits = [done.visits for done in rounds if done.visits is not None]
    if not visits:
        return Absent(reason="the bundle has only one size")
    return [
        SizeChange(
            before=same[0].before,
            after=same[0].after,
            seen=same[0].seen,
            first=figure_of("ms", [[visit.first] for visit in same]),
            second=figure_of("ms", [[visit.second] for visit in same]),
        )
        for same in zip(*visits, strict=True)
    ]


def _memory(rounds: Sequence[Done], name: str) -> Figure | Absent:
    values = [done.memory[name] for done in rounds]
    reasons = [value for value in values if isinstance(value, str)]
    if reasons:
        return Absent(reason=reasons[0])
    return figure_of("MB", [[float(value)] for value in values])


def _step(rounds: Sequence[Sequence[float]], steps: int, runs: int) -> Figure | Absent:
    evaluations = len(rounds[0]) // runs
    if evaluations < steps:
        return Absent(reason="the engine runs all steps at once; only their total time is known")
    return figure_of("ms", rounds, per_run=evaluations)


def _case(
    index: int,
    case: tuple[tuple[int, int], int, int],
    rounds: Sequence[Done],
    settings: Settings,
    images: U8,
    expected: Mapping[tuple[tuple[int, int], int], U8] | Absent,
) -> Case:
    (height, width), steps, batch = case
    samples = [done.cases[index] for done in rounds]
    totals = [sample.stages["total"] for sample in samples]
    return Case(
        height=height,
        width=width,
        steps=steps,
        batch=batch,
        stages=Stages(
            **{name: figure_of("ms", [sample.stages[name] for sample in samples]) for name in samples[0].stages}
        ),
        step=_step([sample.steps for sample in samples], steps, settings.runs),
        throughput=figure_of("images/s", [[batch * 1e3 / ms for ms in total] for total in totals], better="higher"),
        difference=expected
        if isinstance(expected, Absent)
        else difference_between(images, expected[(height, width), steps][:batch]),
        image=sample_of(images[0], settings.seed),
    )
