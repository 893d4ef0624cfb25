"""The open engines of a pipeline, one for each component."""

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from ..engines.bundle.bundle import Bundle
from ..engines.engine import Array, Engine, run, run_in_engine_memory
from ..engines.fastest import AutoOrder, auto_order
from ..engines.memory import HOST, Buffer, Memory
from ..engines.opening_options import OpeningOptions
from ..engines.registry import ENGINES, Fallback, FallbackPolicy, Opened, check_choice, open_engine
from ..engines.spec import ComponentSpec

__all__ = ["Components"]

_AT_ONCE = min(4, os.cpu_count() or 1)
"""Components that are opened at once: libraries mostly read and optimise a graph on one thread. More of them than cores
would only slow down the largest, which takes longest."""
_SMALL = 256 << 20
"""Most bytes of weights of a component that is opened at the same time as others: opening takes memory beside the
weights, which would add up."""


class _Holders:
    """Counts the :class:`Components` that hold each engine; the last one closes it.

    The components of a pipeline with other LoRAs share one such count, since they share the engines that no LoRA
    changes.
    """

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()
        self._lock = threading.Lock()

    def hold(self, engine: Engine) -> None:
        with self._lock:
            self._count[id(engine)] += 1

    def release(self, engine: Engine) -> None:
        with self._lock:
            self._count[id(engine)] -= 1
            last = self._count[id(engine)] <= 0
            if last:
                del self._count[id(engine)]
        if last:
            engine.close()


class Components:
    """Opens components when they are first used and keeps them open, or, to save memory, closes them after each use.

    Several threads may run components at once, except with ``low_memory``.

    Args:
        bundle: the bundle.
        engine: name of an engine, or ``auto``.
        precision: the graphs to run, ``fp32``, ``bf16`` or ``fp16``; None is each engine's own default.
        fallback: see :func:`~sdengine.engines.registry.open_engine`.
        low_memory: keep at most one component open.
        vae_tiling: see :func:`~sdengine.runtime.decode.vae_tiling.tile_side`.
        safety_checker: whether the bundle's safety checker looks at images, where a request says nothing.
        options: of the engines.
        shared: the same bundle's components with other LoRAs, whose engines may be used here too.

    Attributes:
        vae_tiling: may be changed at any time.
        ran: by component, the name of its engine; also of components that have been closed since.
        fallbacks: engines that were skipped, with reasons.
        open_ms: time spent opening, in milliseconds.

    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        engine: str,
        precision: str | None,
        fallback: FallbackPolicy | None,
        low_memory: bool,
        vae_tiling: str | int = "auto",
        safety_checker: bool = True,
        options: OpeningOptions | None = None,
        shared: "Components | None" = None,
    ) -> None:
        check_choice(engine, precision, fallback)
        self.bundle = bundle
        self.vae_tiling = vae_tiling
        self.safety_checker = safety_checker
        self.low_memory = low_memory
        self.ran: dict[str, str] = {}
        self.fallbacks: list[Fallback] = []
        self._notes: list[str] = []
        self.open_ms = 0.0
        self._engine = engine
        self._precision = precision
        self._fallback = fallback
        self._options = options or OpeningOptions()
        self._open: dict[str, Engine] = {}
        self._holders: _Holders = _Holders() if shared is None else shared._holders
        self._in_use: Counter[str] = Counter()
        self._opening = threading.Lock()
        self._ran_in: dict[str, str] = {}
        self._auto: AutoOrder | None = None if shared is None else shared._auto

    def with_bundle(self, bundle: Bundle) -> "Components":
        """Return components for the same bundle with other weights.

        Open engines whose weights do not change are used by both. The caller closes the result.
        """
        other = Components(
            bundle,
            engine=self._engine,
            precision=self._precision,
            fallback=self._fallback,
            low_memory=self.low_memory,
            vae_tiling=self.vae_tiling,
            safety_checker=self.safety_checker,
            options=self._options,
            shared=self,
        )
        with self._opening:
            for name, engine in self._open.items():
                if self.weights_of([name]) == other.weights_of([name]):
                    self._holders.hold(engine)
                    other._open[name], other.ran[name] = engine, engine.name
            other._notes = list(self._notes)
            other.fallbacks = [fallback for fallback in self.fallbacks if fallback.component in other._open]
        return other

    @property
    def open(self) -> tuple[str, ...]:
        """Names of the components that are open."""
        return tuple(self._open)

    @contextlib.contextmanager
    def opening(self, names: Sequence[str]) -> Iterator[None]:
        """Open components ahead of their use, small ones on other threads while the body runs.

        With ``low_memory`` nothing is opened ahead. The body must not run components.

        Raises:
            EngineError: one of them cannot be opened; raised after the body.

        """
        if self.low_memory:
            yield
            return
        started = time.perf_counter()
        with self._opening, ThreadPoolExecutor(_AT_ONCE) as pool:
            self._order()  # decided once, before the threads below ask for it
            missing = [name for name in dict.fromkeys(names) if name not in self._open]
            small_ones = sorted((n for n in missing if self._bytes(n) <= _SMALL), key=self._bytes, reverse=True)
            small = {name: pool.submit(self._opened, name) for name in small_ones}
            failures: list[BaseException] = []
            try:
                yield
            finally:
                failures += [error for error in (future.exception() for future in small.values()) if error is not None]
                for name in missing:
                    future = small.get(name)
                    if future is not None and future.exception() is None:
                        self._keep(name, future.result())
            for name in missing:
                if name not in small and not failures:
                    self._keep(name, self._opened(name))
            self.open_ms += (time.perf_counter() - started) * 1e3
        if failures:
            raise failures[0]

    def _bytes(self, name: str) -> int:
        """Return the size of the weights of a component's network."""
        manifest = self.bundle.manifest
        return manifest.files[manifest.networks[self.bundle.component(name).network].weights].bytes

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.open_ms += (time.perf_counter() - started) * 1e3

    @contextlib.contextmanager
    def use(self, *names: str) -> Iterator[list[Engine]]:
        """Yield the engines of some components."""
        try:
            self._in_use.update(names)
            yield [self._get(name) for name in names]
        finally:
            self._in_use.subtract(names)
            if self.low_memory:
                for name in [name for name in self._open if not self._in_use[name]]:
                    self._release(name)

    @property
    def notes(self) -> list[str]:
        """What the user should know about how components were opened."""
        engine_notes = (note for name in list(self._open) for note in self._notes_of(name))
        auto_notes = [] if self._auto is None or self._auto.note is None else [self._auto.note]
        return [*self.bundle.checks.notes, *auto_notes, *self._notes, *engine_notes]

    @property
    def auto_ms(self) -> dict[str, float]:
        """Milliseconds of an evaluation on each engine that ``auto`` chose from; empty where there was no choice."""
        return {} if self._auto is None else {**self._auto.milliseconds}

    def _order(self) -> Sequence[str] | None:
        """Return the order in which engines are tried; None where one was named."""
        if self._engine != "auto":
            return None
        if self._auto is None:
            self._auto = auto_order(self.bundle, precision=self._precision, options=self._options)
        return self._auto.names

    def spec(self, name: str) -> ComponentSpec:
        """Return a component's shapes; its engine need not be open."""
        return next(iter(self.bundle.component(name).graphs.values())).spec

    def weights_of(self, names: Sequence[str]) -> tuple[tuple[str, str] | None, ...]:
        """Return for each component the hashes of its exported weights and of its current ones; None if it has none."""
        components = self.bundle.manifest.components
        identities = (self.bundle.weights(components[n].network) if n in components else None for n in names)
        return tuple(None if weights is None else (weights.base, weights.identity) for weights in identities)

    def captures_loop(self, *names: str) -> bool:
        """Whether all steps of a loop over these components run as one launch.

        They do if ``cuda_graph=loop`` was requested, and the engines of all of them have that option.
        """
        if self._options.cuda_graph != "loop" or self.memory_of(*names) is HOST:
            return False
        return all("cuda_graph" in ENGINES[self._get(name).name].options for name in names)

    def memory_of(self, *names: str) -> Memory:
        """Return the memory that these components share; the host's if they share none, or do not stay open."""
        if self.low_memory:
            return HOST
        memories = [self._get(name).memory for name in names]
        return memories[0] if all(memory is memories[0] for memory in memories) else HOST

    def run(self, name: str, inputs: Mapping[str, Buffer], *, precision: str | None = None) -> dict[str, Array]:
        """Run a component once, into new arrays on the host.

        Args:
            name: the component.
            inputs: by name; on the host, or in the component's memory (:meth:`memory_of`).
            precision: if it differs from the one that the component last ran in, an engine of this precision is opened
                for this run alone.

        """
        if precision is not None and precision != self.precision_of(name):
            with self._timed():
                engine = self._opened(name, precision).engine
            try:
                return run(engine, inputs)
            finally:
                engine.close()
        with self.use(name) as (engine,):
            self._ran_in[name] = engine.precision
            return run(engine, inputs)

    def run_once(self, name: str, inputs: Mapping[str, Buffer]) -> dict[str, Array]:
        """Run a component as :meth:`run`, and close it afterwards if it was not open before."""
        with self._opening:
            was_open = name in self._open
        outputs = self.run(name, inputs)
        with self._opening:
            if not was_open and not self._in_use[name] and name in self._open:
                self._release(name)
        return outputs

    def run_into(self, memory: Memory, name: str, inputs: Mapping[str, Buffer]) -> Mapping[str, Buffer]:
        """Run a component once, into new buffers in ``memory`` if its engine works there, else on the host."""
        with self.use(name) as (engine,):
            self._ran_in[name] = engine.precision
            return run_in_engine_memory(engine, inputs) if engine.memory is memory else run(engine, inputs)

    def precision_of(self, name: str) -> str | None:
        """Return the precision in which a component last ran; None if it has not run yet."""
        return self._ran_in.get(name)

    def close(self) -> None:
        """Close all components."""
        while self._open:
            self._holders.release(self._open.popitem()[1])

    def _get(self, name: str) -> Engine:
        with self._opening:
            if name not in self._open:
                with self._timed():
                    self._keep(name, self._opened(name))
            return self._open[name]

    def _keep(self, name: str, opened: Opened) -> None:
        self._open[name] = opened.engine
        self._holders.hold(opened.engine)
        if name not in self.ran:
            self.fallbacks += opened.fallbacks
        self.ran[name] = opened.engine.name
        self._remember(f"{option} is of no use to {opened.engine.name}, which runs {name}" for option in opened.unused)

    def _release(self, name: str) -> None:
        """Close a component, unless others hold its engine; the engine's notes are kept."""
        self._remember(self._notes_of(name))
        self._holders.release(self._open.pop(name))

    def _notes_of(self, name: str) -> list[str]:
        engine = self._open.get(name)
        return [] if engine is None else [f"{name}: {note}" for note in engine.notes]

    def _remember(self, notes: Iterable[str]) -> None:
        self._notes += [note for note in notes if note not in self._notes]

    def _opened(self, name: str, precision: str | None = None) -> Opened:
        return open_engine(
            self.bundle,
            name,
            engine=self._engine,
            precision=precision or self._precision_of(name),
            fallback=self._fallback,
            options=self._options,
            order=self._order(),
        )

    def _precision_of(self, name: str) -> str | None:
        """Return the requested precision, or None for a component that was exported without it (SDXL's VAE)."""
        components = self.bundle.manifest.components
        exported = any(self._precision in component.graphs for component in components.values())
        return None if exported and self._precision not in components[name].graphs else self._precision
