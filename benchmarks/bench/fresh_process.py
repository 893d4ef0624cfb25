"""The fresh process: opens a bundle with one engine and generates images, as a user's program does, and times it.

It is started by :mod:`.start_process`, which notes the time at the process's first line and after the imports, before
this module is imported.
"""

import os
import sys
import time
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from ...engines.errors import SdengineError
from ...engines.registry import ENGINES
from ...runtime.pipeline import Pipeline
from ...runtime.result import Result
from .environment import Clocks, clocks_now
from .memory_use import DeviceMemoryMonitor, peak_memory, resident_memory
from .process_messages import CaseSamples, Cold, Done, ProcessJob, Tick, Visit
from .report import Ran, Skipped, Stages
from .settings import cases_of, opening_options, probe_size, request_for, split_engine

__all__ = ["serve"]


def serve(first_line: float, imported: float) -> None:
    """Read a job from standard input, do it, answer on standard output; exit status 1 with a message if it fails.

    Args:
        first_line: ``time.perf_counter()`` at the process's first line.
        imported: the same after that import.

    """
    with os.fdopen(os.dup(1), "wb", buffering=0) as channel:
        os.dup2(2, 1)  # what libraries print must not end up between the answers
        job = msgspec.json.decode(sys.stdin.buffer.read(), type=ProcessJob)
        try:
            done = (
                _generate_references(job, channel)
                if job.task == "images"
                else _Measurement(job, channel).measure(first_line, imported)
            )
        except SdengineError as error:
            sys.exit(str(error))
        _send(channel, done)


def _send(channel: BinaryIO, message: Tick | Done) -> None:
    channel.write(msgspec.json.encode(message) + b"\n")


def _ms(start: float, end: float) -> float:
    return (end - start) * 1e3


def _load(job: ProcessJob) -> Pipeline:
    name, precision = split_engine(job.engine)
    options = opening_options(job.engine, job.settings)
    if job.task == "images":
        options.pop("device", None)  # the reference runs where torch runs
    return Pipeline.load(job.bundle, engine=name, precision=precision, **options)


def _generate_references(job: ProcessJob, channel: BinaryIO) -> Done:
    """Generate the largest batch of each size and number of steps: an image depends only on its own seed."""
    warnings: dict[str, None] = {}
    most = max(job.settings.batches)
    with _load(job) as pipeline:
        for i, (size, steps, batch) in enumerate(cases_of(job.settings)):
            if batch != most:
                continue
            result = pipeline.generate(request_for(job.settings, size, steps, batch))
            warnings |= dict.fromkeys(result.warnings)
            _save_images(job, i, result)
            _send(channel, Tick(label="generating"))
        return Done(
            version=_version(job.engine),
            components=_components_that_ran(pipeline),
            skipped=_skipped(pipeline),
            warnings=list(warnings),
        )


class _Measurement:
    """Measures one engine."""

    def __init__(self, job: ProcessJob, channel: BinaryIO) -> None:
        self._job = job
        self._channel = channel
        self._warnings: dict[str, None] = {}
        self._device = DeviceMemoryMonitor()
        self._clocks: list[Clocks] = []
        self._serial = count(1)

    def measure(self, first_line: float, imported: float) -> Done:
        """Measure cold start, changes of size and all cases."""
        job = self._job
        memory: dict[str, float | str] = {}
        before_library = time.perf_counter()
        _import_library(job.engine)
        memory["imported"] = resident_memory()
        opening = time.perf_counter()
        with _load(job) as pipeline:
            opened = time.perf_counter()
            compile_ms = pipeline.components.open_ms
            memory["loaded"] = resident_memory()
            calling = time.perf_counter()
            self._call(pipeline, *next(cases_of(job.settings)), label="first image")
            called = time.perf_counter()
            parts = {
                "process": _ms(job.started, first_line),
                "imports": _ms(first_line, imported),
                "library": _ms(before_library, opening),
                "open": _ms(opening, opened) - compile_ms,
                "compile": compile_ms,
                "first_image": _ms(calling, called),
            }
            # The sum of the parts: what the benchmark itself does between them is not a user's cost.
            cold = Cold(**parts, total=sum(parts.values()))
            self._look()
            whole = job.task == "measure"
            visits = self._visit_sizes(pipeline) if whole else None
            cases = cases_of(job.settings) if whole else ()
            samples = [self._case(pipeline, i, *case) for i, case in enumerate(cases)]
            return Done(
                version=_version(job.engine),
                components=_components_that_ran(pipeline),
                skipped=_skipped(pipeline),
                warnings=list(self._warnings),
                cold=cold,
                visits=visits,
                memory=memory | {"peak": peak_memory(), "device": self._device.most},
                clocks=self._clocks,
                cases=samples,
            )

    def _visit_sizes(self, pipeline: Pipeline) -> list[Visit] | None:
        """Change to every other size and back to the first; two calls each."""
        settings = self._job.settings
        sizes = list(settings.sizes)
        if len(sizes) == 1:
            probe = probe_size(settings, pipeline.bundle)
            if probe is None:
                return None
            sizes.append(probe)
        before, visits, seen = sizes[0], [], {sizes[0]}
        for after in [*sizes[1:], sizes[0]]:
            first, second = (
                self._call(
                    pipeline, after, settings.steps[0], settings.batches[0], label="change of size", new_prompt=True
                )
                for _ in range(2)
            )
            visits.append(
                Visit(
                    before=before,
                    after=after,
                    seen=after in seen,
                    first=first.timings_ms.total,
                    second=second.timings_ms.total,
                )
            )
            seen.add(after)
            before = after
        return visits

    def _case(self, pipeline: Pipeline, index: int, size: tuple[int, int], steps: int, batch: int) -> CaseSamples:
        settings = self._job.settings
        label = f"{size[1]}x{size[0]}, {steps} steps, batch {batch}"
        warm = [self._call(pipeline, size, steps, batch, label=label) for _ in range(settings.warmup)]
        _save_images(self._job, index, warm[-1])
        del warm
        results = [self._call(pipeline, size, steps, batch, label=label, new_prompt=True) for _ in range(settings.runs)]
        self._look()
        return CaseSamples(
            stages={
                stage: [getattr(result.timings_ms, stage) for result in results] for stage in Stages.__struct_fields__
            },
            steps=[step for result in results for step in result.timings_ms.steps],
        )

    def _call(
        self, pipeline: Pipeline, size: tuple[int, int], steps: int, batch: int, *, label: str, new_prompt: bool = False
    ) -> Result:
        """Make a call; with ``new_prompt``, of a prompt that the pipeline has not seen, as it caches the last ones."""
        request = request_for(self._job.settings, size, steps, batch)
        if new_prompt:
            request = replace(request, prompt=f"{self._job.settings.prompt} {next(self._serial)}")
        result = pipeline.generate(request)
        self._warnings |= dict.fromkeys(result.warnings)
        _send(self._channel, Tick(label=label))
        return result

    def _look(self) -> None:
        self._clocks.append(clocks_now())
        self._device.look()


def _import_library(engine: str) -> None:
    """Import the engine's library, so that it is not counted as compiling; for ``auto`` it is not known yet."""
    name = split_engine(engine)[0]
    if name in ENGINES:
        ENGINES[name].module.unavailable()


def _version(engine: str) -> str:
    name = split_engine(engine)[0]
    return ENGINES[name].module.version() if name in ENGINES else "auto"


def _components_that_ran(pipeline: Pipeline) -> dict[str, Ran]:
    ran = {}
    for name in pipeline.components.ran:
        with pipeline.components.use(name) as (engine,):
            ran[name] = Ran(engine=engine.name, precision=engine.precision, device=engine.device)
    return ran


def _skipped(pipeline: Pipeline) -> list[Skipped]:
    reasons = {(f.skipped, f.reason): None for f in pipeline.components.fallbacks}
    return [Skipped(engine=engine, reason=reason) for engine, reason in reasons]


def _save_images(job: ProcessJob, index: int, result: Result) -> None:
    """Write the images of a case as uint8 [N, height, width, 3]."""
    if job.images is not None:
        np.save(Path(job.images) / f"{index}.npy", np.stack([np.asarray(image) for image in result.images]))
