"""Who looks on while a worker runs: metrics, recorders of benchmarks."""

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from .policy import Bucket

if TYPE_CHECKING:
    from .ticket import Outcome, Ticket

__all__ = ["Watch", "Watches"]

_log = logging.getLogger("sdengine.serve")


class Watch(Protocol):
    """Its methods are called on the worker's thread after each event there; they must be quick."""

    def stepped(self, bucket: Bucket, images: int, rows: int, seconds: float) -> None:
        """Some images were taken one evaluation further."""

    def staged(self, stage: str, bucket: Bucket, seconds: float) -> None:
        """A request was prepared (``prepare``), or an image decoded (``decode``)."""

    def ended(self, ticket: "Ticket", outcome: "Outcome | Exception") -> None:
        """A request has ended; its caller gets the outcome next."""


class Watches:
    """Tells several; one that raises is logged, and harms neither the others nor any request."""

    def __init__(self, watches: Iterable[Watch]) -> None:
        self._watches = tuple(watches)

    def stepped(self, bucket: Bucket, images: int, rows: int, seconds: float) -> None:
        """See :class:`Watch`."""
        self._tell(lambda watch: watch.stepped(bucket, images, rows, seconds))

    def staged(self, stage: str, bucket: Bucket, seconds: float) -> None:
        """See :class:`Watch`."""
        self._tell(lambda watch: watch.staged(stage, bucket, seconds))

    def ended(self, ticket: "Ticket", outcome: "Outcome | Exception") -> None:
        """See :class:`Watch`."""
        self._tell(lambda watch: watch.ended(ticket, outcome))

    def _tell(self, what: Callable[[Watch], None]) -> None:
        for watch in self._watches:
            try:
                what(watch)
            except Exception:
                _log.exception("a watch of the worker failed")
