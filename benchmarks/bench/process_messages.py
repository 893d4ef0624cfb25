"""Messages to and from a fresh process, of one line each."""

from typing import Literal

import msgspec

from .environment import Clocks
from .report import Ran, Skipped
from .settings import Settings

__all__ = ["CaseSamples", "Cold", "Done", "LoadDone", "LoadJob", "LoadReady", "ProcessJob", "Tick", "Visit"]


class ProcessJob(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one fresh process.

    Attributes:
        bundle: its folder.
        engine: ``NAME`` or ``NAME:PRECISION``.
        settings: see :class:`~sdengine.benchmarks.bench.settings.Settings`.
        task: ``measure`` everything, only ``start`` and generate the first image, or only generate the ``images``.
        images: folder for the images of each case; None where they are not saved.
        started: ``time.perf_counter()`` of the parent when it started the process; the clock is the system's.

    """

    bundle: str
    engine: str
    settings: Settings
    task: Literal["measure", "start", "images"]
    images: str | None
    started: float


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag="tick"):
    """A call has been made."""

    label: str


class Cold(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of the parts of a cold start; see :class:`~sdengine.benchmarks.bench.report.ColdStart`."""

    process: float
    imports: float
    library: float
    open: float
    compile: float
    first_image: float
    total: float


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """A change of size: two calls after it, in milliseconds."""

    before: tuple[int, int]
    after: tuple[int, int]
    seen: bool
    first: float
    second: float


class CaseSamples(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of the calls of one case: by stage, and of all evaluations of the denoiser."""

    stages: dict[str, list[float]]
    steps: list[float]


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """What the process has measured.

    Attributes:
        version: of the engine's library.
        components: the engine of each.
        skipped: engines that ``auto`` prefers and that could not run.
        warnings: of the calls.
        cold: None where only images were generated.
        visits: None where there is no other size to change to.
        memory: MB, or the reason why it is not known: ``imported``, ``loaded``, ``peak``, ``device``.
        clocks: after the first image and after each case.
        cases: in the order of the settings.

    """

    version: str
    components: dict[str, Ran]
    skipped: list[Skipped]
    warnings: list[str]
    cold: Cold | None = None
    visits: list[Visit] | None = None
    memory: dict[str, float | str] = {}
    clocks: list[Clocks] = []
    cases: list[CaseSamples] = []


class LoadJob(msgspec.Struct, frozen=True, kw_only=True):
    """The work of one worker process under load.

    Attributes:
        bundle: its folder.
        engine: ``NAME`` or ``NAME:PRECISION``.
        settings: see :class:`~sdengine.benchmarks.bench.settings.Settings`.
        clients: how many ask at once, one case after the other.
        calls: images of each client in a case.
        threads: of one operator; None lets the engine choose.

    """

    bundle: str
    engine: str
    settings: Settings
    clients: list[int]
    calls: int
    threads: int | None


class LoadReady(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The process waits: before a case, and at its end."""


class LoadDone(msgspec.Struct, frozen=True, kw_only=True, tag="load"):
    """A case.

    Attributes:
        started: ``time.perf_counter()`` at its beginning; the clock is the system's.
        ended: the same at its end.
        cpu_s: seconds that all threads have computed in between.
        latencies: milliseconds of each image.
        memory: MB of this process, of which shared pages count by its share; or why it is not known.

    """

    started: float
    ended: float
    cpu_s: float
    latencies: list[float]
    memory: float | str
