"""A worker: one thread that takes many requests' images to their end together, one evaluation at a time."""

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ...engines.errors import EngineError, SdengineError, UsageError, nearest
from ...engines.scalars import finite_number, shortened, whole_number
from .costs import Costs
from .failures import ClosedError, DeadlineError, QueueFullError, ServeError, WorkerDiedError
from .model import Model
from .policy import POLICIES, Bucket, Policy
from .ticket import Outcome, Ticket
from .turns import Turns
from .watch import Watch, Watches

if TYPE_CHECKING:
    from ..pipeline import Pipeline

__all__ = ["Status", "Worker"]

_log = logging.getLogger("sdengine.serve")
_T = TypeVar("_T")

_LONGEST_RETRY_S = 120.0
"""The `openai` client gives up where it is told to wait longer."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """How a worker is.

    Attributes:
        alive: whether its thread runs and takes requests to their end.
        error: why not.
        waiting: requests that have not begun.
        running: requests that have.
        active: images that hold a slot.
        failures: errors of engines since the last launch that succeeded.

    """

    alive: bool
    error: str | None
    waiting: int
    running: int
    active: int
    failures: int


class Worker:
    """Generates what many callers ask for, together: requests join and leave at every evaluation.

    An image comes out as it does alone, as far as the engine gives the same numbers for another number of rows. A
    request that fails, is cancelled or runs out of time leaves the others alone.

    ::

        async with Worker(Pipeline.load("bundles/sdxl")) as worker:
            ticket = worker.submit(prompt="an astronaut", num_inference_steps=30, seed=1)
            async for event in ticket.events(): ...
            outcome = await ticket.result()

    Args:
        pipelines: an open pipeline, or several by the name under which requests ask for them. They are closed with the
            worker.
        policy: ``step``, ``fcfs`` or ``batch-at-the-door``, or a function; see :mod:`~.policy`.
        max_num_seqs: images that share a launch at most; None is as many as each bundle takes.
        max_num_queued: requests that may wait, 1 or more.
        max_queued_bytes: memory that the images may take that waiting requests start from; one request may exceed it.
        watches: told what happens; see :class:`.Watch`.

    Raises:
        UsageError: an argument cannot be met.

    Attributes:
        models: by name.
        costs: what turns take, as measured.

    """

    def __init__(
        self,
        pipelines: "Pipeline | Mapping[str, Pipeline]",
        *,
        policy: str | Policy = "step",
        max_num_seqs: int | None = None,
        max_num_queued: int = 256,
        max_queued_bytes: int = 2**31,
        watches: Sequence[Watch] = (),
    ) -> None:
        if max_num_seqs is not None:
            max_num_seqs = whole_number("max_num_seqs", max_num_seqs, least=1)
        decide = _policy(policy)
        self.models = {name: Model.of(name, pipe, max_num_seqs) for name, pipe in _by_name(pipelines).items()}
        self.costs = Costs()
        self._most_waiting = whole_number("max_num_queued", max_num_queued, least=1)
        self._most_bytes = whole_number("max_queued_bytes", max_queued_bytes, least=0)
        self._watches = Watches(watches)
        self._turns = Turns(self.models, decide, self.costs, self._watches)
        self._changed = threading.Condition()
        self._arrived: deque[Ticket] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._open: dict[int, Ticket] = {}
        self._refusing: str | None = None
        self._stopping = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sdengine worker", daemon=True)
        _ALL.add(self)

    # -- its life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start its thread.

        Raises:
            UsageError: it runs already.
            ClosedError: it is closed.

        """
        with self._changed:
            if self._stopping:
                raise ClosedError("the worker is closed: make another one, of pipelines that are open")
            if self._thread.ident is not None:
                raise UsageError("the worker runs already; it is started once, by `async with` or by start()")
            self._thread.start()

    async def __aenter__(self) -> "Worker":
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def drain(self, reason: str = "the worker takes no requests any more") -> None:
        """Take no requests any more; those that were accepted go on."""
        with self._changed:
            self._refusing = self._refusing or reason

    def abort(self, error: ServeError) -> None:
        """End all requests that were accepted, with this error."""
        with self._changed:
            tickets = list(self._open.values())
        for ticket in tickets:
            ticket.cancel(error)

    async def idle(self, timeout: float | None = None) -> bool:
        """Wait until no request is open, for so many seconds at most; return whether that came about."""
        end = None if timeout is None else time.monotonic() + timeout
        while self._open and (end is None or time.monotonic() < end):
            await asyncio.sleep(0.01)
        return not self._open

    def close(self) -> None:
        """End what is open with :class:`ClosedError`, end the thread, and close the pipelines.

        Any thread but the worker's own may call this, several times too. A worker that is left open is closed when the
        program ends.

        Raises:
            UsageError: it is called on the worker's own thread, as by a watch.

        """
        if threading.current_thread() is self._thread:
            raise UsageError("a worker cannot be closed on its own thread")
        self.drain("the worker is closed")
        self.abort(ClosedError("the worker was closed before the request was done"))
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        with self._changed:
            never_begun = list(self._open.values())  # it was not started
        for ticket in never_begun:
            self._end(ticket, ClosedError("the worker was closed before the request was done"))
        for model in self.models.values():
            model.pipeline.close()

    def _forked(self) -> None:
        """Become unusable in a process that was forked: the thread is in the other one."""
        self._changed = threading.Condition()  # another thread may have held the old one
        self._refusing = "this process was forked from the one that has the worker: make another worker here"
        self._stopping = True
        self._open.clear()

    # -- what callers ask ---------------------------------------------------------------------------------------------

    def submit(
        self,
        model: str | None = None,
        *,
        priority: int = 0,
        timeout: float | None = None,
        previews: int = 0,
        request_id: str = "",
        **settings: Any,
    ) -> Ticket:
        """Accept a request; any thread may call this, and it may take some milliseconds.

        Args:
            model: name of the bundle; None is the first.
            priority: lower is handled earlier.
            timeout: seconds, above 0, after which it is of no use any more, waiting included.
            previews: previews of each image.
            request_id: for logs.
            settings: as for :meth:`~sdengine.runtime.pipeline.Pipeline.prepare`.

        Raises:
            UsageError: it cannot be met as given.
            QueueFullError: too many wait.
            ClosedError: no requests are taken any more.
            WorkerDiedError: the worker's thread has ended by an error.

        """
        self.check()
        priority, previews = whole_number("priority", priority), whole_number("previews", previews, least=0)
        if timeout is not None and (timeout := finite_number("timeout", timeout)) <= 0:
            raise UsageError(f"timeout={timeout:g} must be above 0 s")
        plan = self.model(model).plan(settings)
        ticket = Ticket(plan=plan, request_id=request_id, priority=priority, previews=previews)
        ticket.deadline = None if timeout is None else ticket.accepted + timeout
        ticket._on_cancel = self._notify
        with self._changed:
            self.check()
            self._check_bytes(plan.image_bytes)
            self._open[ticket.number] = ticket
            self._arrived.append(ticket)
            self._changed.notify_all()
        return ticket

    def model(self, name: str | None) -> Model:
        """Return the model of that name, or the first.

        Raises:
            UsageError: there is none of that name.

        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise UsageError(f"model {name!r} is not served here{nearest(name, self.models)}")
        return self.models[name]

    def check(self) -> None:
        """Raise what :meth:`submit` would raise whatever the request."""
        with self._changed:
            if self._error is not None:
                raise WorkerDiedError(f"the worker has ended by an error: {self._error}")
            if self._refusing is not None:
                raise ClosedError(self._refusing)
            waiting = self._waiting()
            if waiting >= self._most_waiting:
                raise QueueFullError(f"{waiting} requests wait already, the most there may be", self.wait_s())

    def _check_bytes(self, added: int) -> None:
        """Raise QueueFullError if the images of what waits would take too much memory; the caller holds the lock."""
        held = sum(ticket.plan.image_bytes for ticket in self._open.values() if ticket.begun is None)
        if added and held and held + added > self._most_bytes:
            raise QueueFullError(
                f"the images of waiting requests take {held / 2**20:.0f} MiB, this one's {added / 2**20:.0f} MiB: "
                f"{self._most_bytes / 2**20:.0f} MiB are the most",
                self.wait_s(),
            )

    def wait_s(self) -> float:
        """Estimate the seconds until one more request may wait: what the open ones take together, for each of them."""
        with self._changed:
            tickets = list(self._open.values())
        work = 0.0
        for ticket in tickets:
            plan = ticket.plan
            slots = self.models[plan.bucket.model].slots
            together = sum(w.evaluations * self.costs.step(w.bucket, w.rows * slots) / slots for w in plan.stages)
            work += plan.images * (together + self.costs.decode(plan.bucket))
        return min(_LONGEST_RETRY_S, max(1.0, work / max(1, len(tickets))))

    def status(self) -> Status:
        """Return how it is now."""
        with self._changed:
            waiting = self._waiting()
            return Status(
                alive=self._error is None and self._thread.is_alive(),
                error=None if self._error is None else f"{type(self._error).__name__}: {self._error}",
                waiting=waiting,
                running=len(self._open) - waiting,
                active=self._turns.active,
                failures=self._turns.failures,
            )

    @property
    def refusing(self) -> str | None:
        """Why no requests are taken any more, None where they are."""
        return self._refusing

    def call(self, function: Callable[[], _T]) -> "Future[_T]":
        """Run a function on the worker's thread, between turns; it may use the pipelines."""
        future: Future[_T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        with self._changed:
            if self._error is not None or self._stopping:
                raise ClosedError("the worker is closed")
            self._calls.append(run)
            self._changed.notify_all()
        return future

    def warm_up(self, model: str, height: int | None = None, width: int | None = None) -> "Future[Bucket]":
        """Generate once at a size, with each number of images that may share a launch: later requests are quick."""
        return self.call(lambda: self._turns.warm_up(self.models[model], height, width))

    def _waiting(self) -> int:
        return sum(ticket.begun is None for ticket in self._open.values())

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    # -- its thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                with self._changed:
                    arrived, calls = list(self._arrived), list(self._calls)
                    self._arrived.clear()
                    self._calls.clear()
                for call in calls:
                    call()
                for ticket in arrived:
                    self._turns.add(ticket)
                self._end_early()
                for ticket, outcome in self._turns.turn():
                    self._end(ticket, outcome)
        except BaseException as error:
            _log.exception("the worker has ended by an error")
            self._died(error)
        finally:
            with contextlib.suppress(EngineError):
                self._turns.close()

    def _wait(self) -> bool:
        """Wait for something to do; return False when the worker is to end and nothing is open any more."""
        with self._changed:
            while not (self._arrived or self._calls or self._turns.busy):
                if self._stopping:
                    return False
                self._changed.wait()
            return True

    def _end_early(self) -> None:
        """End what was cancelled, or whose time is over."""
        now = time.monotonic()
        with self._changed:
            tickets = list(self._open.values())
        for ticket in tickets:
            if ticket.deadline is not None and now >= ticket.deadline:
                waited = now - ticket.accepted
                stage = "before it began" if ticket.begun is None else "before its images were done"
                ticket.cancel(DeadlineError(f"the request's time of {waited:.3g} s was over {stage}"))
            if ticket.ended_by is not None:
                self._turns.remove(ticket)
                self._end(ticket, ticket.ended_by)

    def _end(self, ticket: Ticket, outcome: Outcome | Exception) -> None:
        """Tell the watches first, so that who has the answer sees it in the metrics, too."""
        with self._changed:
            self._open.pop(ticket.number, None)
        times = ticket.times if isinstance(outcome, Exception) else outcome.timings_ms
        ticket.times.total = times.total = (time.monotonic() - ticket.accepted) * 1e3
        self._watches.ended(ticket, outcome)
        ticket.end(outcome)

    def _died(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            tickets, calls = list(self._open.values()), list(self._calls)
        reason = error if isinstance(error, SdengineError) else f"{type(error).__name__}: {error}"
        for ticket in tickets:
            self._end(ticket, WorkerDiedError(f"the worker has ended by an error: {reason}"))
        for call in calls:
            call()  # what it needs is likely to be gone, and its future says so


def _policy(policy: str | Policy) -> Policy:
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise UsageError(f"policy {policy!r} is none of {', '.join(POLICIES)}{nearest(policy, POLICIES)}")
        return POLICIES[policy]
    if not callable(policy):
        raise UsageError(f"policy={shortened(policy)} must be a name or a function")
    return policy


def _by_name(pipelines: "Pipeline | Mapping[str, Pipeline]") -> "dict[str, Pipeline]":
    from ..pipeline import Pipeline

    if isinstance(pipelines, Pipeline):
        return {pipelines.bundle.path.name: pipelines}
    named = dict(pipelines) if isinstance(pipelines, Mapping) else {}
    if not named or not all(isinstance(pipeline, Pipeline) for pipeline in named.values()):
        raise UsageError("a worker takes a Pipeline, or several by name: Worker(Pipeline.load(BUNDLE))")
    return named


_ALL: "weakref.WeakSet[Worker]" = weakref.WeakSet()


def _close_all() -> None:
    """Close what a program leaves open: a thread within an engine's code when Python ends aborts the process."""
    for worker in list(_ALL):
        worker.close()


def _after_fork() -> None:
    for worker in list(_ALL):
        worker._forked()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
