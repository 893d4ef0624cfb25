"""A request that a worker has accepted: its events, its outcome, and how to cancel it."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .failures import CancelledError, ServeError

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...engines.registry import Fallback
    from .plan import Plan

__all__ = ["Event", "Finished", "Outcome", "Preview", "Progress", "StageTimes", "Ticket"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """An image has been taken further.

    Attributes:
        index: which image of the request.
        step: steps that it has behind it.
        steps: steps that it has in all.

    """

    index: int
    step: int
    steps: int


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What an image looks like on the way, roughly.

    Attributes:
        index: which image of the request.
        number: which preview of that image, from 0.
        step: steps that it has behind it.
        steps: steps that it has in all.
        image: RGB, of the size that the image will have.

    """

    index: int
    number: int
    step: int
    steps: int
    image: "Image"


@dataclass(kw_only=True)
class StageTimes:
    """Milliseconds of a request.

    Attributes:
        queue: from its acceptance to its preparation.
        loras: changing to the LoRAs that it asks for, where others were over the weights.
        prepare: its preparation, changing LoRAs included.
        denoise: launches that its images took part in, each counted once.
        decode: its decoding.
        total: from its acceptance to its end.

    """

    queue: float = 0.0
    loras: float = 0.0
    prepare: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The images of a request, and how they were made.

    Attributes:
        images: in the order of their seeds.
        seeds: of each image.
        height: pixels.
        width: pixels.
        timings_ms: see :class:`StageTimes`.
        warnings: what the caller should know.
        engines: component -> engine that ran it.
        fallbacks: engines that were skipped, with reasons.
        settings: what shaped the images, resolved; JSON values.
        loras: what was over the weights; see :class:`~sdengine.runtime.result.Result`.
        nsfw: of each image, whether the safety checker has flagged it; None where none has looked at it.

    """

    images: "tuple[Image, ...]"
    seeds: tuple[int, ...]
    height: int
    width: int
    timings_ms: StageTimes
    warnings: tuple[str, ...]
    engines: dict[str, str]
    fallbacks: "tuple[Fallback, ...]"
    settings: dict[str, Any]
    loras: tuple[dict[str, Any], ...] = ()
    nsfw: tuple[bool | None, ...]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """An image is done.

    Attributes:
        index: which image of the request.
        outcome: of this image alone; its times are those of the request so far.

    """

    index: int
    outcome: Outcome


Event = Progress | Preview | Finished

_numbers = iter(range(1, 1 << 62))


@dataclass(eq=False, kw_only=True)
class Ticket:
    """A request that a worker has accepted. One caller follows it, by :meth:`events` or :meth:`result`.

    Attributes:
        plan: what is to be generated, and where.
        request_id: what the caller calls it, for logs.
        priority: see :class:`~.policy.Item`.
        previews: how many previews of each image are asked for.
        deadline: seconds of :func:`time.monotonic` at which its time is over; None is never.
        number: in the order of arrival.
        accepted: seconds of :func:`time.monotonic`.
        begun: when it was prepared; None before.
        future: its outcome, also for callers on other threads; to cancel it cancels the request.
        times: how long its stages took so far.
        loras: what is over the weights that it is generated with, once it has begun.

    """

    plan: "Plan"
    request_id: str = ""
    priority: int = 0
    previews: int = 0
    deadline: float | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    accepted: float = field(default_factory=time.monotonic)
    begun: float | None = None
    future: "Future[Outcome]" = field(default_factory=Future)
    times: StageTimes = field(default_factory=StageTimes)
    loras: list[dict[str, Any]] = field(default_factory=list)
    _cancelled: ServeError | None = None
    _on_cancel: Callable[[], None] | None = None
    _undelivered: deque[Event] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _wake: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.future.add_done_callback(self._note_cancelled)

    @property
    def done(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.future.done()

    def cancel(self, error: ServeError | None = None) -> None:
        """Let it end within the evaluation that is running; what is done already stays done."""
        if self.done or self._cancelled is not None:
            return
        self._cancelled = error or CancelledError("the request was cancelled")
        if self._on_cancel is not None:
            self._on_cancel()

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield what happens, until it is done.

        Closing the iteration early cancels the request: ``async with contextlib.aclosing(ticket.events()) as events``.
        A caller that reads slowly misses steps, but no preview and no image.

        Raises:
            SdengineError: why it failed.

        """
        awake, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake(_: object = None) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                loop.call_soon_threadsafe(awake.set)

        self._wake = wake
        self.future.add_done_callback(wake)
        try:
            while True:
                awake.clear()
                done = self.done  # looked at before the events: those before the end are not missed
                while (event := self._next_event()) is not None:
                    yield event
                if done:
                    self._outcome()
                    return
                await awake.wait()
        finally:
            self._wake = None
            self.cancel()

    async def result(self) -> Outcome:
        """Wait for the images; a caller that is cancelled meanwhile cancels the request.

        Raises:
            SdengineError: why it failed.

        """
        async for _ in self.events():
            pass
        return self._outcome()

    def _outcome(self) -> Outcome:
        if self.future.cancelled():
            raise CancelledError("the request was cancelled")
        return self.future.result()

    def _note_cancelled(self, future: "Future[Outcome]") -> None:
        """Let the worker know that the future was cancelled, as :func:`asyncio.wait_for` does."""
        if future.cancelled():
            self._cancelled = self._cancelled or CancelledError("the request was cancelled")
            if self._on_cancel is not None:
                self._on_cancel()

    def _next_event(self) -> Event | None:
        with self._lock:
            return self._undelivered.popleft() if self._undelivered else None

    # -- for the worker -----------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Add an event; of the steps that nobody has read yet, only the last is told."""
        with self._lock:
            last = self._undelivered[-1] if self._undelivered else None
            if isinstance(event, Progress) and isinstance(last, Progress) and last.index == event.index:
                self._undelivered.pop()
            self._undelivered.append(event)
            wake = self._wake
        if wake is not None:
            wake()

    def end(self, outcome: Outcome | Exception) -> None:
        """Set the outcome, once."""
        with contextlib.suppress(InvalidStateError):  # it was cancelled
            if isinstance(outcome, Exception):
                self.future.set_exception(outcome)
            else:
                self.future.set_result(outcome)

    @property
    def ended_by(self) -> ServeError | None:
        """Why it is to end early: it was cancelled, or its time is over."""
        return self._cancelled
