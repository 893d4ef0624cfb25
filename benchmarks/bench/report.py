"""``report.json``: what was measured, on what, with which settings, as plain data.

The published schema, ``report.schema.json``, is generated from these structs. A field that is not known is an error,
and so is one that is missing: a report is whole or it is refused. What could not be measured is
:class:`~sdengine.benchmarks.bench.figure.Absent`, with the reason.
"""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from .environment import Clocks, Environment
from .figure import Absent, Figure
from .published import PublishedFigure
from .settings import Settings

__all__ = [
    "SCHEMA",
    "BundleRecord",
    "Case",
    "ColdStart",
    "EngineReport",
    "ImageDifference",
    "LoadCase",
    "LoadFigures",
    "MemoryFigures",
    "Ran",
    "Reference",
    "ReferenceImage",
    "Report",
    "SampleImage",
    "SizeChange",
    "Skipped",
    "Stages",
]

SCHEMA = 2
"""Version of this layout; another one is refused."""

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class BundleRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which bundle was measured.

    Attributes:
        source: what was exported.
        family: ``sd1``, ``sdxl``, ...
        sha256: of the manifest, which holds the hash of every file.
        weights_sha256: over the hashes of the weights alone: bundles of one checkpoint agree in it.
        bytes: size of all files.
        unet_parameters: number of elements.
        default_size: height and width, in pixels.

    """

    source: str
    family: str
    sha256: Sha256
    weights_sha256: Sha256
    bytes: int
    unet_parameters: int
    default_size: tuple[int, int]


class Ran(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine that ran a component."""

    engine: str
    precision: str
    device: str


class Skipped(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An engine that was not measured, or a component for which ``auto`` took another one."""

    engine: str
    reason: str


class ColdStart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From nothing to the first image, in milliseconds, each part by itself.

    Attributes:
        process: from starting the process to its first line.
        imports: ``import sdengine.runtime``.
        library: import of the engine's own library.
        open: reading and checking the bundle, making the tokenizers.
        compile: opening the engines: sessions, compiled models, plans.
        first_image: the first call, at the first size and batch.
        total: from starting the process to the first image.

    """

    process: Figure
    imports: Figure
    library: Figure
    open: Figure
    compile: Figure
    first_image: Figure
    total: Figure


class SizeChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change of size in a process that is warm.

    Attributes:
        before: height and width of the calls before.
        after: height and width after the change.
        seen: whether the process had generated this size earlier.
        first: the first call after the change.
        second: the call after that, for comparison.

    """

    before: tuple[int, int]
    after: tuple[int, int]
    seen: bool
    first: Figure
    second: Figure


class MemoryFigures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Memory of the process that generates, in MB.

    Attributes:
        imported: resident after the imports.
        loaded: resident with all engines open.
        peak: the most that was ever resident.
        device: the most seen in use on NVIDIA GPUs, measured after each case: by this process, or where the memory of
            each process is not known, as in containers, the increase since it began.

    """

    imported: Figure | Absent
    loaded: Figure | Absent
    peak: Figure | Absent
    device: Figure | Absent


class ImageDifference(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="difference", tag_field="kind"
):
    """How far images are from those of torch in float32, in levels of 8-bit RGB; the worst image of the batch.

    Attributes:
        largest: largest difference of any value.
        rms: root of the mean square difference.
        psnr_db: peak signal-to-noise ratio; None where nothing differs at all.

    """

    largest: float
    rms: float
    psnr_db: float | None


class SampleImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sample image, generated in the first round.

    Attributes:
        seed: of its noise.
        sha256: of its 8-bit RGB pixels.
        data: ``data:`` URI of a WebP with at most 384 pixels a side.

    """

    seed: int
    sha256: Sha256
    data: Annotated[str, msgspec.Meta(pattern="^data:image/webp;base64,")]


class Stages(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Milliseconds of the parts of a call.

    Attributes:
        text: tokenizing and encoding the prompts.
        condition: what depends on the request and not on the step.
        encode: the initial noise, and encoding images.
        denoise: all steps.
        decode: from latents to images.
        total: the whole call.

    """

    text: Figure
    condition: Figure
    encode: Figure
    denoise: Figure
    decode: Figure
    total: Figure

    def items(self) -> list[tuple[str, Figure]]:
        """Return names and figures, in the order of a call; the total is the last."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__]


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One setting: a size, a number of steps, a batch.

    Attributes:
        height: pixels.
        width: pixels.
        steps: of the solver.
        batch: images of one call.
        stages: of a call.
        step: milliseconds of each evaluation of the denoiser; ``per_run`` evaluations a call. Absent where the engine
            takes all of them at once.
        throughput: images per second.
        difference: from torch in float32.
        image: the first of the batch.

    """

    height: int
    width: int
    steps: int
    batch: int
    stages: Stages
    step: Figure | Absent
    throughput: Figure
    difference: ImageDifference | Absent
    image: SampleImage

    @property
    def label(self) -> str:
        """The case in words."""
        return f"{self.width}x{self.height}, {self.steps} steps, batch {self.batch}"


class LoadFigures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="load", tag_field="kind"):
    """What was measured under load, in one run: how far it varies is not known.

    Attributes:
        images_per_s: of all workers.
        p50_ms: median of the milliseconds from asking for an image to having it.
        p90_ms: 90th percentile of the same.
        cores: that all workers kept busy: seconds of computing for each second.
        memory_mb: resident, of all workers, in MB; pages that they share count once. None where it is not known.

    """

    images_per_s: float
    p50_ms: float
    p90_ms: float
    cores: float
    memory_mb: float | None


class LoadCase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clients who each ask for the next image when they have one, at the first size and number of steps.

    Attributes:
        workers: processes with open engines; each batches the requests of its clients at every evaluation.
        clients: of all workers together.
        threads: of one operator of each worker; None where that is left to the engine.
        measured: the figures.

    """

    workers: int
    clients: int
    threads: int | None
    measured: LoadFigures | Absent

    @property
    def label(self) -> str:
        """The case in words."""
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return f"{workers}, {'1 client' if self.clients == 1 else f'{self.clients} clients'}"


class EngineReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine.

    Attributes:
        engine: as the settings name it: ``NAME`` or ``NAME:PRECISION``.
        version: of its library.
        components: the engine of each component.
        skipped: with ``auto``, engines that it prefers and that could not run.
        warnings: of the calls.
        cold_start: see :class:`ColdStart`.
        size_changes: see :class:`SizeChange`.
        memory: see :class:`MemoryFigures`.
        clocks: after the first image and after each case, in all rounds.
        cases: in the order of the settings.
        load: see :class:`LoadCase`; empty where it was not measured.

    """

    engine: str
    version: str
    components: dict[str, Ran]
    skipped: list[Skipped]
    warnings: list[str]
    cold_start: ColdStart
    size_changes: list[SizeChange] | Absent
    memory: MemoryFigures
    clocks: list[Clocks]
    cases: Annotated[list[Case], msgspec.Meta(min_length=1)]
    load: list[LoadCase] = []


class ReferenceImage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What torch generated in float32 at one size and number of steps: the first image."""

    height: int
    width: int
    steps: int
    image: SampleImage


class Reference(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="reference", tag_field="kind"
):
    """Torch in float32, which the images are compared with.

    Attributes:
        version: of torch.
        device: where it ran.
        images: one for each size and number of steps.

    """

    version: str
    device: str
    images: list[ReferenceImage]


class UsedSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the settings that nobody set came to.

    Attributes:
        guidance_scale: of the requests.
        scheduler: class of diffusers.

    """

    guidance_scale: float
    scheduler: str


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes:
        schema: version of this layout.
        sdengine: version of this package.
        created: when, in UTC (ISO 8601).
        bundle: what was measured.
        settings: how.
        environment: where.
        engines: the figures.
        skipped: engines that the bundle was exported for and that cannot run here.
        reference: torch in float32.
        published: figures of others for the same model, size and steps.
        used: settings that were left to the bundle; None in reports of earlier versions.

    """

    schema: int
    sdengine: str
    created: str
    bundle: BundleRecord
    settings: Settings
    environment: Environment
    engines: Annotated[list[EngineReport], msgspec.Meta(min_length=1)]
    skipped: list[Skipped]
    reference: Reference | Absent
    published: list[PublishedFigure] | Absent
    used: UsedSettings | None = None

    def figures(self) -> Iterator[tuple[tuple[str, str], Figure | Absent]]:
        """Yield every measured figure with its name: (of what, which)."""
        for engine in self.engines:
            yield from _named(engine, f"{engine.engine}: cold start", engine.cold_start)
            yield from _named(engine, f"{engine.engine}: memory", engine.memory)
            for change in () if isinstance(engine.size_changes, Absent) else engine.size_changes:
                new = "known" if change.seen else "new"
                place = f"{engine.engine}: {_size(change.before)} to {_size(change.after)} ({new})"
                yield (place, "first call"), change.first
                yield (place, "second call"), change.second
            for case in engine.cases:
                place = f"{engine.engine}: {case.label}"
                yield from (((place, stage), figure) for stage, figure in case.stages.items())
                yield (place, "step"), case.step
                yield (place, "throughput"), case.throughput


def _named(
    engine: EngineReport, place: str, record: ColdStart | MemoryFigures
) -> Iterator[tuple[tuple[str, str], Figure | Absent]]:
    for name in record.__struct_fields__:
        yield (place, name.replace("_", " ")), getattr(record, name)


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
