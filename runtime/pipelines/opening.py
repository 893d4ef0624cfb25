"""A checkpoint and how it is to be run; its engines, from the first use on. Pipelines over one checkpoint share it."""

import contextlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from ...engines.bundle.bundle import SCHEDULER, Bundle
from ...engines.cuda.gpu import no_gpu
from ...engines.errors import CheckpointError, DamagedBundleError, EngineUnavailableError, UsageError
from ...engines.files.json_data import json_data
from ...engines.registry import ENGINES
from ..pipeline import Pipeline
from .adapters import Adapters
from .bundle_cache import Recipe, cached_bundle, in_use
from .composed import composed
from .locate import Located, located
from .say import note, progress
from .torch_values import device_value, dtype_value

__all__ = ["CHECKER", "PARTS", "Opening", "Options", "check_device", "engine_for"]

CHECKER = ("safety_checker", "feature_extractor")
"""The safety checker, and how images are prepared for it."""
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", *CHECKER)
"""Parts of a checkpoint that others can take the place of."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a checkpoint is to be run.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``; None, of a bundle, is wherever its first engine runs.
        precision: of the graphs; None, of a bundle, is what it holds.
        engine: name of an engine, or ``auto``: the first that the device and the precision allow.
        low_memory: keep one component open at a time.
        vae_tiling: as for :meth:`~sdengine.runtime.pipeline.Pipeline.load`.
        sizes: that can be drawn, as for ``sdengine export --sizes``.
        batch: images at once, as for ``sdengine export --batch``.
        prior: of a decoder of Kandinsky, where its model card does not name it.
        safety_checker: whether the checkpoint's safety checker is exported, and looks at images.
        preload: as for :meth:`~sdengine.runtime.pipeline.Pipeline.load`.
        textual_inversions: as for :meth:`~sdengine.runtime.pipeline.Pipeline.load`.
        adapters: LoRAs.

    """

    device: str | None = "cpu"
    precision: str | None = "fp32"
    engine: str = "auto"
    low_memory: bool = False
    vae_tiling: str | int = "auto"
    sizes: str | None = None
    batch: str = "1..4"
    prior: str | Path | None = None
    safety_checker: bool = True
    preload: tuple[str, ...] | None = None
    textual_inversions: tuple[Any, ...] = ()
    adapters: Adapters = field(default_factory=Adapters)


@dataclass(eq=False, kw_only=True)
class Opening:
    """What a pipeline is made from, and its engines once they are open. For several threads.

    Attributes:
        source: the checkpoint, or a bundle.
        variant: which weights of it.
        parts: folders or files of parts that take the place of its own.
        flags: entries of its ``model_index.json`` that are changed.
        controlnets: folders or files.
        options: how it is to be run.
        pipeline_class: what the user's checkpoint names, where that is no part of ``source``: a prior, which is opened
            with its decoder.

    """

    source: Located
    variant: str | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)
    flags: Mapping[str, object] = field(default_factory=dict)
    controlnets: tuple[Path, ...] = ()
    options: Options = field(default_factory=Options)
    pipeline_class: str | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _pipeline: Pipeline | None = None
    _held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        if self.source.is_bundle and (self.parts or self.controlnets or self.flags):
            names = ", ".join([*self.parts, *self.flags, *(["controlnet"] if self.controlnets else [])])
            raise UsageError(f"{self.source.path} is a bundle, with all of its parts: {names} cannot be replaced in it")

    def change(self, **options: Any) -> None:
        """Change options; engines that are open otherwise are closed, and opened again at the next use.

        Raises:
            SdengineError: LoRAs cannot be put over the weights; the options are as before.

        """
        with self._lock:
            before, self.options = self.options, replace(self.options, **options)
            in_place = replace(before, vae_tiling=self.options.vae_tiling, adapters=self.options.adapters)
            if in_place != self.options:
                self.close()
            elif self._pipeline is not None:
                self._pipeline.vae_tiling = self.options.vae_tiling
                try:
                    self._pipeline.set_loras(self.options.adapters.sources)
                except BaseException:
                    self.options = before
                    raise

    def pipeline(self) -> Pipeline:
        """Return the open pipeline; the first use exports the checkpoint.

        Raises:
            SdengineError: it cannot be exported or opened.

        """
        with self._lock:
            if self._pipeline is None:
                self._pipeline = self._open()
            return self._pipeline

    @property
    def running(self) -> Pipeline | None:
        """The pipeline, if it is open."""
        return self._pipeline

    def bundle(self, *, again: bool = False) -> Path:
        """Return the folder of the bundle; see :func:`~.bundle_cache.cached_bundle`."""
        if self.source.is_bundle:
            return self.source.path
        return cached_bundle(self.recipe(), say=progress, again=again)

    def recipe(self) -> Recipe:
        """Return what the checkpoint's bundle is made of.

        Raises:
            UsageError: parts of a single file are to be others'.
            CheckpointError: its prior cannot be found.

        """
        options = self.options
        precision = options.precision or "fp32"
        source, parts = self.source, dict(self.parts)
        if source.path.is_file():
            if strange := [name for name in parts if name != "vae"] or [*self.flags]:
                raise UsageError(f"{', '.join(strange)}: in a single file, the vae alone can be replaced")
        elif parts or self.flags:
            source, parts = Located(name=source.name, path=composed(source, parts, self.flags)), {}
        return Recipe(
            name=self.source.name,
            checkpoint=source.path,
            variant=self.variant,
            vae=parts.get("vae"),
            controlnets=self.controlnets,
            engine=engine_for(options.device or "cpu", precision, options.engine),
            precision=precision,
            sizes=options.sizes,
            batch=options.batch,
            prior=None if options.prior is None else located(options.prior, say=progress).path,
            safety_checker=options.safety_checker or not self._names_safety_checker,
        )

    @property
    def has_safety_checker(self) -> bool:
        """Whether images are looked at, unless a pipeline switches that off."""
        if not self.options.safety_checker or self.source.path.is_file():
            return False
        if self.source.is_bundle:
            return Bundle(self.source.path).safety_checker is not None
        return self._names_safety_checker

    @property
    def _names_safety_checker(self) -> bool:
        named = None if self.source.path.is_file() else self.source.index().get("safety_checker")
        # diffusers writes [null, null] where there is none.
        return "safety_checker" in self.parts or named not in (None, [None, None])

    def part_folder(self, name: str) -> Path:
        """Return the folder that a part is read from.

        Raises:
            CheckpointError: it has no folder of its own.

        """
        place = self.parts.get(name, self.source.path / name)
        if self.source.path.is_file() or not place.exists():
            raise CheckpointError(f"{self.source.path} has no folder of the {name}")
        return place

    def index(self) -> Mapping[str, object]:
        """Return the checkpoint's ``model_index.json``; of a single file it is known once that has been exported."""
        if self.source.path.is_dir() and not self.source.is_bundle:
            return {**self.source.index(), **self.flags}
        return Bundle(self.bundle()).manifest.model_index

    def scheduler_config(self) -> dict[str, Any]:
        """Return the checkpoint's scheduler config as it is written.

        Raises:
            CheckpointError: it cannot be read.

        """
        file = self.source.path / "scheduler" / "scheduler_config.json"
        if self.source.path.is_file() or self.source.is_bundle:
            file = self.bundle() / SCHEDULER
        try:
            config = json_data(file.read_bytes())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{file} holds no object of options")
        return config

    @property
    def device_value(self) -> Any:
        """The device of torch, where torch is here; else its name."""
        return device_value(self.options.device or "cpu")

    @property
    def dtype(self) -> Any:
        """The type of the precision, where torch is here; else its name."""
        return dtype_value(self.options.precision or "fp32")

    def close(self) -> None:
        """Release the engines; the next use opens them again."""
        with self._lock:
            pipeline, self._pipeline = self._pipeline, None
            if pipeline is not None:
                pipeline.close()
            self._held.close()

    def _open(self) -> Pipeline:
        bundle = self.bundle()
        try:
            return self._load(bundle)
        except (DamagedBundleError, msgspec.MsgspecError) as error:
            if self.source.is_bundle:
                raise
            self._held.close()
            note(f"the bundle in the cache is damaged and is exported again: {error}")
            return self._load(self.bundle(again=True))

    def _load(self, bundle: Path) -> Pipeline:
        options = self.options
        if not self.source.is_bundle:
            self._held.enter_context(in_use(bundle))
        return Pipeline.load(
            bundle,
            engine=options.engine,
            precision=options.precision,
            device=options.device,
            low_memory=options.low_memory,
            vae_tiling=options.vae_tiling,
            safety_checker=options.safety_checker,
            preload=options.preload,
            textual_inversions=options.textual_inversions,
            loras=options.adapters.sources,
        )


def check_device(device: str) -> None:
    """Check that engines can run on a device.

    Raises:
        UsageError: there is no such kind of device.
        EngineUnavailableError: it is not here.

    """
    kind = device.partition(":")[0]
    known = sorted({name for engine in ENGINES.values() for name in engine.devices})
    if kind not in known:
        raise UsageError(f"device {device!r}: engines run on {' and '.join(known)}")
    if kind == "cuda" and (reason := no_gpu()) is not None:
        raise EngineUnavailableError(f"device {device!r}: {reason}")


def engine_for(device: str, precision: str, engine: str = "auto") -> str:
    """Return the engine to export for: the one that is named, else the first that can run here.

    Raises:
        EngineUnavailableError: none can; the text gives the reasons.

    """
    if engine != "auto":
        return engine
    reasons = []
    for name, kind in ENGINES.items():
        if device.partition(":")[0] not in kind.devices or precision not in kind.precisions:
            continue
        reason = kind.module.unavailable()
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    raise EngineUnavailableError(f"no engine runs {precision} on {device}: {'; '.join(reasons)}")
