"""A batch: samples that share each launch of the networks, and join and leave between evaluations."""

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...engines.engine import Engine
from ...engines.errors import EngineError, UsageError
from ...engines.memory import HOST, Buffer, Memory
from .batch_buffers import BatchBuffers, Launch
from .evaluations import WINDOW, Evaluation, NoiseTable, NumberTable, sample_noise, upcoming
from .members import Member, Members
from .numbers import packed
from .sample import Sample, checked_samples

__all__ = ["Batch", "running", "serialised"]

F32 = NDArray[np.float32]

_MOST_CAPTURED = 4
"""Captured loops that a batch holds; the oldest makes room for a new one."""

_B = TypeVar("_B", bound="Batch")
_P = ParamSpec("_P")
_T = TypeVar("_T")


def serialised(method: "Callable[Concatenate[_B, _P], _T]") -> "Callable[Concatenate[_B, _P], _T]":
    """Make a call wait until another thread's call on the same batch has ended."""

    @functools.wraps(method)
    def alone(self: "_B", /, *args: _P.args, **named: _P.kwargs) -> _T:
        with self._lock:
            return method(self, *args, **named)

    return alone


def running(method: "Callable[Concatenate[_B, _P], _T]") -> "Callable[Concatenate[_B, _P], _T]":
    """As :func:`serialised`, for what runs engines, of an open batch: a use of their owner, who waits for its end."""

    @functools.wraps(method)
    def used(self: "_B", /, *args: _P.args, **named: _P.kwargs) -> _T:
        with self._lock:
            if self._in_use:  # it was called by such a method
                return method(self, *args, **named)
            self.check_open()
            with self._use():
                self._in_use = True
                try:
                    return method(self, *args, **named)
                finally:
                    self._in_use = False

    return used


class Batch:
    """Samples that are denoised together.

    They may come from different requests, be at different evaluations, and have different solvers, numbers of steps
    and guidance. What must be equal is listed by :attr:`~.sample.Sample.bucket`: sizes, length of the text,
    ControlNets, weights. A sample's result is the one that it would have alone, as far as the engine computes the same
    numbers for another number of rows.

    All memory is allocated when the batch is made. The active samples are always in the first slots, and fewer samples
    run on the first part of the same buffers, so that the addresses that an engine has bound stay valid.

    Make one with :meth:`~sdengine.runtime.pipeline.Pipeline.batch`. Calls from several threads wait for each other.

    Args:
        engines: the open engines of ``sample.components``, in that order.
        sample: has the bucket that all samples of the batch will have; it is not put in.
        slots: the most samples that are in it at a time.
        rows: the most rows that they have together; None is two for each slot.
        home: memory that a sample's state is copied to when it leaves; None is the host's.
        use: returns a context to enter while engines run; they are not released before it is left.
        on_close: called once, when the batch is closed.

    Attributes:
        memory: where its buffers are.
        slots: the most samples that are in it at a time.

    """

    def __init__(
        self,
        engines: Sequence[Engine],
        sample: Sample,
        *,
        slots: int,
        rows: int | None = None,
        home: Memory | None = None,
        use: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.slots = slots
        self._members = Members(slots, 2 * slots if rows is None else rows)
        by_component = dict(zip(sample.components, engines, strict=True))
        self._buffers = BatchBuffers(by_component, sample, slots=slots, rows=self._members.rows)
        self.memory: Memory = self._buffers.memory
        self._home = home
        self._use = use
        self._in_use = False
        self._on_close = on_close
        self._bucket = sample.bucket
        self._active: tuple[Sample, ...] = ()
        noise = self._buffers.noise
        self._host_noise: F32 = noise if isinstance(noise, np.ndarray) else np.zeros(noise.shape, np.float32)
        self._numbers = NumberTable(self.memory, self._buffers.current_numbers.shape[0])
        self._noise = NoiseTable(self.memory, noise.shape)
        self._captured: dict[object, Callable[[], None]] = {}
        self._launch: Launch | None = None
        self._plan: list[Evaluation] = []
        self._next = 0
        self._closed = False
        self._lock = threading.RLock()

    # -- members ------------------------------------------------------------------------------------------------------

    @property
    def active(self) -> tuple[Sample, ...]:
        """The samples in it, in the order of their slots."""
        return self._active

    def fits(self, sample: Sample) -> bool:
        """Whether the sample can be put in now."""
        members = self._members
        free = len(members) < members.slots and members.used_rows + sample.rows <= members.rows
        return free and not sample.finished and sample.bucket == self._bucket

    def has_room(self, sample: Sample, slots: int, rows: int) -> bool:
        """Whether that many samples like this one, with that many rows in all, would fit into it if it were empty."""
        return self.slots >= slots and self._members.rows >= rows and sample.bucket == self._bucket

    @running
    def put(self, sample: Sample) -> None:
        """Put a sample in; from the next launch on it is denoised further from its position.

        Raises:
            UsageError: there is no room, it differs in its bucket, is finished, or is in a batch already.

        """
        self._check(sample)
        sample.begin()
        if not self._members:
            self._buffers.current_state = 0  # captured loops begin with the first of the two states
        member = self._members.add(sample, packed(self._buffers.numbers, sample.numbers, sample.evaluations))
        self._buffers.fill(sample, member.slot, member.rows[0])
        sample._batch = self
        self._members_changed()

    def _check(self, sample: Sample) -> None:
        checked_samples([sample])
        if sample._batch is not None:
            raise UsageError("this sample is in a batch already")
        if sample.finished:
            raise UsageError(f"all {sample.evaluations} evaluations of this sample are done")
        batch_bucket, bucket = self._bucket, sample.bucket
        for name in {**batch_bucket, **bucket}:
            required, actual = batch_bucket.get(name), bucket.get(name)
            if required != actual:
                difference = "" if name == "the weights" else f": {actual}, and {required} in the batch"
                raise UsageError(
                    f"samples of one batch share sizes, length of text, ControlNets and weights: {name} of this sample "
                    f"differ{difference}"
                )
        self._members.check_room(sample)

    def check_open(self) -> None:
        """Raise UsageError if the batch has been closed."""
        if self._closed:
            raise UsageError("this batch is closed")

    @serialised
    def take(self, sample: Sample) -> None:
        """Take a sample out, finished or not: its state is copied out of the batch, and its slot becomes free.

        A sample that is not finished can be put into a batch again, and continues where it stopped.

        Raises:
            UsageError: it is not in this batch.

        """
        self._remove([self._members.of(sample)])

    def place_of(self, sample: Sample) -> tuple[Memory, Buffer]:
        """Return where a sample's state is: this batch's memory, and the sample's slot ``[K, C, h, w]`` in it."""
        return self.memory, self._buffers.state[self._members.of(sample).slot]

    def _remove(self, leaving: Sequence[Member]) -> None:
        """Copy the states of leaving members out, and move members from the end into the free slots and rows."""
        memory, state = self.memory, self._buffers.state
        for member in leaving:
            sample = member.sample
            if self._home is memory:
                sample.state = memory.zeros(state.shape[1:], state.dtype)
                memory.copy(sample.state, state[member.slot])
                sample._memory = memory
            else:
                sample.state, sample._memory = np.array(memory.read(state[member.slot])), HOST
            sample._batch = None
        self._members.remove(leaving, self._buffers.move_slot, self._buffers.move_row)
        self._members_changed()

    def _members_changed(self) -> None:
        """Discard what was planned for the former members."""
        self._active = tuple(member.sample for member in self._members)
        self._launch = None
        self._plan = []

    # -- running ------------------------------------------------------------------------------------------------------

    @running
    def step(self) -> list[Sample]:
        """Run one evaluation of every active sample; return the finished ones, which have left the batch.

        Raises:
            UsageError: no sample is active.
            EngineError: an engine failed.

        """
        if self._next >= len(self._plan):
            self._fill(WINDOW)
        launch, evaluation, i = self._launch, self._plan[self._next], self._next
        assert launch is not None
        if evaluation.noisy:
            sample_noise(evaluation.noisy, self._host_noise)
            samples = len(self._members)
            if self._buffers.noise is not self._host_noise:
                self.memory.copy(self._buffers.noise[:samples], self._host_noise[:samples])
        self.memory.copy(self._buffers.current_numbers, self._numbers.at(i))
        self._buffers.run(launch, evaluation.run_preceding)
        self._next += 1
        return self._advance(1)

    @running
    def finish(self) -> list[Sample]:
        """Run every active sample to its end, and return them.

        If all have the same number of evaluations left, these run together: on a GPU as one captured CUDA graph. Else
        :meth:`step` is called until all are finished.

        Raises:
            UsageError: no sample is active.
            EngineError: an engine failed.

        """
        remaining = {member.remaining for member in self._members}
        if len(remaining) > 1:
            finished = []
            while self._members:
                finished += self.step()
            return finished
        count = remaining.pop() if remaining else 0
        if self._numbers.make_room(count):
            self._captured.clear()  # captured loops would read the former table
        self._fill(count)
        launch, plan = self._launch, self._plan
        assert launch is not None
        noisy = [i for i in range(count) if plan[i].noisy]
        if self._noise.make_room(len(noisy)):
            self._captured.clear()
        self._noise.fill([plan[i].noisy for i in noisy])
        noise_row = {i: row for row, i in enumerate(noisy)}
        run_preceding = tuple(evaluation.run_preceding for evaluation in plan)
        buffers = self._buffers
        buffers.assume_residuals_not_zero()

        def work() -> None:
            for i in range(count):
                if i in noise_row:
                    self.memory.copy(buffers.noise, self._noise.at(noise_row[i]))
                self.memory.copy(buffers.current_numbers, self._numbers.at(i))
                buffers.run(launch, run_preceding[i])

        first_state = buffers.current_state
        key = (launch.key, count, tuple(noisy), run_preceding, first_state)
        if key not in self._captured:
            while len(self._captured) >= _MOST_CAPTURED:
                del self._captured[next(iter(self._captured))]
            self._captured[key] = self.memory.capture(work)
        self._captured[key]()
        buffers.current_state = (first_state + count) % 2  # replaying a capture does not run Python code
        buffers.assume_residuals_not_zero()
        return self._advance(count)

    def _fill(self, most: int) -> None:
        """Plan the next evaluations, at most ``most``, and copy their numbers to the networks' memory.

        Raises:
            UsageError: no sample is active.

        """
        if not self._members:
            raise UsageError("there is no sample in this batch")
        if self._launch is None:
            self._launch = self._buffers.launch_for(len(self._members), self._members.used_rows)
            row_sample = np.zeros(self._launch.key[1], np.int64)
            for member in self._members:
                member.places = self._launch.layout.places(member.slot, member.rows)
                row_sample[list(member.rows)] = member.slot
            self.memory.copy(self._buffers.row_sample[: len(row_sample)], row_sample)
            self._buffers.assume_residuals_not_zero()
        count = min(most, *(member.remaining for member in self._members))
        self._numbers.fill(self._members, count)
        self._plan = upcoming(self._members, count)
        self._next = 0

    def _advance(self, evaluations: int) -> list[Sample]:
        """Count evaluations that have run; return the samples that are finished, which leave."""
        finished = []
        for member in self._members:
            member.sample.position += evaluations
            if member.sample.finished:
                finished.append(member)
        if finished:
            self._remove(finished)
        return [member.sample for member in finished]

    # -- closing ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Batch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @serialised
    def close(self) -> None:
        """Take the samples out, and release the buffers and captured graphs; calling it twice is harmless."""
        if self._closed:
            return
        self._closed = True
        try:
            self.memory.wait(self.memory.event())  # after an error the engines may still be running
            if self._members:
                self._remove(list(self._members))
        except EngineError:  # the call that failed has raised it; the samples' states are lost
            for member in self._members:
                member.sample._batch = None
        finally:
            self._members.clear()
            self._active, self._plan, self._launch = (), [], None
            self._captured.clear()
            self._noise.release()
            self._buffers.release()
            if self._on_close is not None:
                self._on_close()
