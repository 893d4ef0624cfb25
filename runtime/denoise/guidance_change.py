"""The guidance scale that a callback sets, as ``pipe._guidance_scale = 0.0`` does in diffusers."""

import contextlib
import threading
from collections.abc import Iterator

from ...engines.errors import UsageError
from ...engines.scalars import finite_number

__all__ = ["GuidanceChange"]


class GuidanceChange:
    """The guidance scale of the samples that a callback is called for; each thread's callback has its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextlib.contextmanager
    def of_step(self, scale: float) -> Iterator[None]:
        """Set :attr:`scale` while the body runs; it may be read and changed there."""
        self._local.scale = scale
        try:
            yield
        finally:
            self._local.scale = None

    @property
    def scale(self) -> float:
        """The current scale.

        Raises:
            UsageError: no callback runs on this thread.

        """
        scale: float | None = getattr(self._local, "scale", None)
        if scale is None:
            raise UsageError("_guidance_scale is there in a callback alone; guidance_scale is an argument of the call")
        return scale

    @scale.setter
    def scale(self, scale: float) -> None:
        assert self.scale is not None
        self._local.scale = finite_number("_guidance_scale", scale)
