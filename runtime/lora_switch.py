"""Changes the LoRAs of a pipeline between its calls."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..engines.bundle.bundle import Bundle
from ..engines.lora import LoraSource
from .loaded import Loaded
from .lora_folder import LoraFolder
from .lora_set import LoraSet, LoraSources
from .request.lora_request import loras_of_request
from .request.request import Request

if TYPE_CHECKING:
    from .prompt import InversionSource

__all__ = ["LoraSwitch"]


class LoraSwitch:
    """Holds the engines with the current LoRAs, and engines with earlier ones as long as calls use them.

    Several threads may use it at once.

    Args:
        loaded: the engines as they were opened.
        plain: the bundle without LoRAs.
        usual: the LoRAs of requests that name none.
        folder: the folder in which names of LoRAs are looked up.
        inversions: the pipeline's textual inversions, which are read again at every change.

    Attributes:
        alive: the current engines, and earlier ones that are still in use.
        current: the current engines.

    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        plain: Bundle,
        usual: LoraSources,
        folder: LoraFolder | None,
        inversions: "Sequence[InversionSource]",
    ) -> None:
        self.current = loaded
        self.alive = [loaded]
        self._plain = plain
        self._usual = usual
        self._folder = folder
        self._inversions = inversions
        self._lock = threading.RLock()

    def set(self, loras: Sequence[LoraSource]) -> None:
        """Change the LoRAs, also for requests that name none; see :meth:`~.pipeline.Pipeline.set_loras`."""
        with self._lock:
            sources = LoraSources.of(loras, self._folder)
            self._change(sources)
            self._usual = sources

    def of_request(self, request: Request) -> tuple[Request, LoraSources]:
        """Return a request without tags in its prompts, and its LoRAs; see :func:`.loras_of_request`."""
        return loras_of_request(request, self._usual, self._folder)

    @property
    def names(self) -> list[str]:
        """The names of the LoRAs that are in the folder now."""
        return [] if self._folder is None else self._folder.names()

    def has(self, name: str) -> bool:
        """Whether the folder has a LoRA of that name.

        Raises:
            UsageError: it has several.

        """
        return self._folder is not None and self._folder.find(name) is not None

    @contextlib.contextmanager
    def use(self, sources: LoraSources | None = None) -> Iterator[tuple[Loaded, float]]:
        """Yield the engines that a call uses, and the milliseconds that changing to its LoRAs took.

        Args:
            sources: the call's LoRAs; None is the current ones.

        """
        loaded, switch_ms = self.hold(sources)
        with loaded.use():
            yield loaded, switch_ms

    def hold(self, sources: LoraSources | None = None) -> tuple[Loaded, float]:
        """As :meth:`use`, for callers that call :meth:`.Loaded.let_go` themselves."""
        with self._lock:
            switch_ms = 0.0
            if sources is not None and not self.current.loras.are(sources):
                self._change(sources)
                switch_ms = self.current.switch_ms
            self.current.hold()
            return self.current, switch_ms

    def _change(self, sources: LoraSources) -> None:
        """Open the components that other LoRAs change; the caller holds the lock."""
        from .generate import Generation

        started = time.perf_counter()
        old = self.current
        applied = LoraSet.read(sources, self._plain)
        # Components that open only when they run must not fail then.
        bundle = applied.over(self._plain, check=old.components.low_memory)
        components = old.components.with_bundle(bundle)
        try:
            with components.opening(old.components.open):
                generation = Generation(bundle, components, self._inversions, applied.words)
        except BaseException:
            components.close()
            raise
        switch_ms = (time.perf_counter() - started) * 1e3
        self.current = Loaded(components, generation, applied, switch_ms=switch_ms)
        self.alive.append(self.current)
        old.retire()
        self.alive[:] = [loaded for loaded in self.alive if not loaded.released]

    def close(self) -> None:
        """Release all engines."""
        for loaded in self.alive:
            loaded.close()
