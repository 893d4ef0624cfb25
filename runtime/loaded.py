"""A bundle's open engines, with one set of LoRAs merged into the weights."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..engines.errors import NonFiniteError
from ..engines.resident import release_freed
from .lora_set import LoraSet
from .open_engines import Components

if TYPE_CHECKING:
    from .generate import Generation

__all__ = ["Loaded"]


class Loaded:
    """The engines that a call of a pipeline uses from its beginning to its end.

    When the pipeline changes to other LoRAs, it makes another ``Loaded`` and retires this one, which is released when
    the last call and the last batch that use it have ended.

    Args:
        components: the engines.
        generation: generates with them.
        loras: the LoRAs that are merged into the weights.
        switch_ms: milliseconds that it took to change to these LoRAs.

    """

    def __init__(
        self, components: Components, generation: "Generation", loras: LoraSet, *, switch_ms: float = 0.0
    ) -> None:
        self.bundle = components.bundle
        self.components = components
        self.generation = generation
        self.loras = loras
        self.switch_ms = switch_ms
        self._users = 0
        self._retired = self._released = False
        self._lock = threading.Lock()

    def hold(self) -> None:
        """Count a user, a call or a batch; it calls :meth:`let_go` when it ends."""
        with self._lock:
            self._users += 1

    def let_go(self) -> None:
        """Count one user less; if it was the last, and this is retired, release the engines."""
        with self._lock:
            self._users -= 1
        self._release_if_unused()

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Run the body as a user that :meth:`hold` has counted; afterwards it is counted out.

        Raises:
            NonFiniteError: with the LoRAs' names, as they may be the cause.

        """
        try:
            yield
        except NonFiniteError as error:
            if not self.loras.loras:
                raise
            names = ", ".join(lora.name for lora, _, _ in self.loras.loras)
            raise NonFiniteError(f"{error}; or apply less of the LoRAs ({names})") from error
        finally:
            self.let_go()

    def retire(self) -> None:
        """Allow no new user; idle batches are closed."""
        self.generation.denoising.close_idle()
        with self._lock:
            self._retired = True
        self._release_if_unused()

    @property
    def released(self) -> bool:
        """Whether its engines have been released."""
        return self._released

    def close(self) -> None:
        """Release the engines now, and close all batches."""
        with self._lock:
            if self._released:
                return
            self._released = True
        self.generation.close()
        self.components.close()
        release_freed()

    def _release_if_unused(self) -> None:
        with self._lock:
            unused = self._retired and not self._users
        if unused:
            self.close()
