"""What is to be measured: the user's options, with sensible defaults, checked before anything runs."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

import msgspec

from ...engines.bundle.bundle import Bundle
from ...engines.errors import EngineError, EngineUnavailableError, UsageError, nearest
from ...engines.registry import ENGINES
from ...runtime.request.request import Request
from ...runtime.request.resolve import resolve

__all__ = [
    "BenchOptions",
    "Settings",
    "cases_of",
    "opening_options",
    "probe_size",
    "request_for",
    "settings_for",
    "split_engine",
]

_PROMPT = "a large yellow star on a blue background"  # the demo checkpoint can generate it too
_STEPS = 30
_BATCHES = (1, 2, 4, 8)
_WORKERS = (1, 2, 4)

Counts = Annotated[list[Annotated[int, msgspec.Meta(ge=1)]], msgspec.Meta(min_length=1)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a bundle is measured.

    Attributes:
        engines: ``NAME`` or ``NAME:PRECISION``, each measured in processes of its own.
        sizes: height and width, in pixels.
        steps: of the solver.
        batches: images of one call.
        rounds: fresh processes for each engine; the engines take turns.
        runs: calls of each case that are measured in a round.
        warmup: calls of each case before them, the last of which generates the sample images.
        prompt: of the images. Calls that are measured have another number after it each, since a pipeline caches the
            embeddings of the last prompts; sample images are of the prompt alone.
        seed: of the first image of a batch; image i has seed + i.
        guidance_scale: None is the family's default.
        scheduler: None is the checkpoint's.
        threads: of one operator; for the engines that have the option, as the next three. None lets the engine choose.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        cuda_graph: ``step``, ``loop`` or ``off``.
        compile: whether torch compiles its networks.
        reference: whether the images are compared with torch in float32.
        clients: who ask one worker process for images at once; empty where that is not measured.
        workers: processes that generate at once, for one client each; those above 1 are measured.

    """

    engines: Annotated[list[str], msgspec.Meta(min_length=1)]
    sizes: Annotated[list[tuple[int, int]], msgspec.Meta(min_length=1)]
    steps: Counts
    batches: Counts
    rounds: Annotated[int, msgspec.Meta(ge=1)]
    runs: Annotated[int, msgspec.Meta(ge=1)]
    warmup: Annotated[int, msgspec.Meta(ge=1)]
    prompt: str
    seed: int
    guidance_scale: float | None
    scheduler: str | None
    threads: int | None
    device: str | None
    cuda_graph: str | None
    compile: bool | None
    reference: bool
    clients: list[Annotated[int, msgspec.Meta(ge=1)]] = []
    workers: list[Annotated[int, msgspec.Meta(ge=1)]] = []


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """The user's options; None and empty where there is none."""

    engines: Sequence[str] = ()
    sizes: Sequence[tuple[int, int]] = ()
    steps: Sequence[int] = ()
    batches: Sequence[int] = ()
    rounds: int | None = None
    runs: int | None = None
    warmup: int | None = None
    prompt: str | None = None
    seed: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    threads: int | None = None
    device: str | None = None
    cuda_graph: str | None = None
    compile: bool | None = None
    reference: bool | None = None
    clients: Sequence[int] = ()
    workers: Sequence[int] = ()
    load: bool = True


def settings_for(options: BenchOptions, bundle: Bundle, old: Settings | None = None) -> tuple[Settings, dict[str, str]]:
    """Decide the settings; return them, and the engines that the bundle was exported for and that are left out.

    Args:
        options: the user's.
        bundle: what is measured.
        old: the settings of a report to compare with, which are the defaults then.

    Raises:
        UsageError: something cannot be measured.
        EngineError: an engine cannot run here.

    """
    left_out: dict[str, str] = {}
    engines = list(options.engines) or (None if old is None else old.engines)
    if engines is None:
        engines, left_out = _engines_of(bundle)
    manifest = bundle.manifest
    pipeline_class = str(manifest.model_index.get("_class_name", ""))
    defaults = bundle.family.defaults_for(pipeline_class, "text", controlled=False)
    most = next(iter(bundle.component("denoiser").graphs.values())).spec.axes["S"].max
    usual = {
        "sizes": [manifest.default_size],
        "steps": [min(_STEPS, defaults.num_inference_steps)],
        "batches": [batch for batch in _BATCHES if batch <= most],
        "rounds": 3,
        "runs": 5,
        "warmup": 1,
        "prompt": _PROMPT,
        "seed": 0,
        "guidance_scale": None,
        "scheduler": None,
        "threads": None,
        "device": None,
        "cuda_graph": None,
        "compile": None,
        "reference": True,
        "clients": [batch for batch in _BATCHES if batch <= most],
        "workers": [workers for workers in _WORKERS if workers <= len(os.sched_getaffinity(0))],
    }

    def chosen(name: str) -> Any:
        value = getattr(options, name)
        if isinstance(value, (list, tuple)):
            value = list(value) or None
        if value is not None:
            return value
        if name in ("clients", "workers") and not options.load:
            return []
        return usual[name] if old is None else getattr(old, name)

    settings = Settings(engines=engines, **{name: chosen(name) for name in usual})
    for name in ("engines", "sizes", "steps", "batches", "clients", "workers"):
        values = getattr(settings, name)
        if len(set(values)) < len(values):
            raise UsageError(f"{name}: {', '.join(map(str, values))} names one twice")
    for engine in engines:
        _check_engine(engine, settings.device)
    for option in ("threads", "cuda_graph", "compile"):
        if getattr(settings, option) is not None and not any(option in opening_options(e, settings) for e in engines):
            raise UsageError(f"{option} has no effect on {', '.join(engines)}")
    if max(settings.batches) > most:
        raise UsageError(f"--batch {max(settings.batches)}: this bundle generates at most {most} images at once")
    for case in cases_of(settings):
        resolve(request_for(settings, *case), bundle)
    return settings, left_out


def cases_of(settings: Settings) -> Iterator[tuple[tuple[int, int], int, int]]:
    """Yield every (size, steps, batch)."""
    yield from product(settings.sizes, settings.steps, settings.batches)


def request_for(settings: Settings, size: tuple[int, int], steps: int, batch: int) -> Request:
    """Return the request of a case, as a user would write it."""
    return Request(
        prompt=settings.prompt,
        height=size[0],
        width=size[1],
        num_inference_steps=steps,
        num_images_per_prompt=batch,
        seed=settings.seed,
        guidance_scale=settings.guidance_scale,
        scheduler=settings.scheduler,
    )


def probe_size(settings: Settings, bundle: Bundle) -> tuple[int, int] | None:
    """Return another size than the first to change to, where only one is measured; None where there is no other."""
    height, width = settings.sizes[0]
    for size in bundle.manifest.sizes:
        if size != (height, width):
            return size
    for change in (64, 32, 16, 8):
        for other in (width - change, width + change):
            try:
                resolve(request_for(settings, (height, other), settings.steps[0], settings.batches[0]), bundle)
            except UsageError:
                continue
            return height, other
    return None


def split_engine(engine: str) -> tuple[str, str | None]:
    """Split ``NAME:PRECISION``."""
    name, _, precision = engine.partition(":")
    return name, precision or None


_OPENING = ("threads", "device", "cuda_graph", "compile")
"""Settings that are options of engines."""


def opening_options(engine: str, settings: Settings) -> dict[str, Any]:
    """Return the options that are set and that an engine has; ``auto`` passes on those that its engine has."""
    name = split_engine(engine)[0]
    has = ENGINES[name].options if name in ENGINES else _OPENING
    values = {option: getattr(settings, option) for option in _OPENING}
    return {option: value for option, value in values.items() if value is not None and option in has}


def _check_engine(engine: str, device: str | None) -> None:
    name, precision = split_engine(engine)
    if name == "auto":
        return
    if name not in ENGINES:
        raise UsageError(f"unknown engine {name!r}; there are auto, {', '.join(ENGINES)}{nearest(name, ENGINES)}")
    kind = ENGINES[name]
    if precision is not None and precision not in kind.precisions:
        raise UsageError(f"--engine {engine}: {name} runs {', '.join(kind.precisions)}")
    if device is not None and device.split(":")[0] not in kind.devices:
        raise UsageError(f"--device {device}: {name} runs on {' or '.join(kind.devices)}")
    reason = kind.module.unavailable()
    if reason is not None:
        raise EngineUnavailableError(f"{name} cannot be measured here: {reason}")


def _engines_of(bundle: Bundle) -> tuple[list[str], dict[str, str]]:
    """Return the engines that a bundle was exported for and that can run here, and the others with their reasons.

    torch is measured beside them where it is installed.
    """
    reasons = {name: ENGINES[name].module.unavailable() for name in bundle.manifest.engines if name in ENGINES}
    can = [name for name, reason in reasons.items() if reason is None]
    cannot = {name: reason for name, reason in reasons.items() if reason is not None}
    if not can:
        why = "; ".join(f"{name}: {reason}" for name, reason in cannot.items())
        raise EngineError(f"no engine that the bundle was exported for can run here: {why}; name one with --engine")
    beside = [name for name, kind in ENGINES.items() if kind.reference and kind.module.unavailable() is None]
    return list(dict.fromkeys([*can, *beside])), cannot
