"""The buffers in which samples share each launch of a network; samples join and leave between evaluations."""

import functools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...engines.engine import Engine
from ...engines.errors import EngineError, UsageError
from ...engines.memory import HOST, Buffer, Memory
from ...engines.spec import ComponentSpec, TensorSpec
from .numbers import Field, NumberLayout, packed
from .sample import Sample, checked_samples

__all__ = ["Batch", "serialised"]

F32 = NDArray[np.float32]

_WINDOW = 64
"""Evaluations whose numbers are copied to the device together; more for a captured loop that is longer."""

_MOST_CAPTURED = 4

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


class Batch:
    """Samples that are denoised together.

    They may be at different evaluations, of different requests, solvers, numbers of steps and guidance. What must be
    equal is listed by :attr:`~.sample.Sample.bucket`: sizes, length of the text, ControlNets, weights. A sample's
    result is the same as alone, as far as the engine gives the same numbers for another number of rows.

    All memory is allocated when the batch is made. The active samples fill the first slots, so that fewer samples run
    on the first part of the same buffers: what an engine has bound to addresses stays valid.

    Make one with :meth:`~sdengine.runtime.pipeline.Pipeline.batch`. Calls of several threads wait for each other.

    Args:
        engines: the open engines of the sample's components, in its order.
        sample: a sample of the bucket; it is not put in.
        slots: the most samples in it.
        rows: the most rows in it; None is two for each sample.
        home: memory that the state of a sample is copied to when it leaves; None is the host's.
        on_close: called once, when the batch is closed.

    Attributes:
        memory: where its buffers are.
        slots: the most samples in it.

    """

    def __init__(
        self,
        engines: Sequence[Engine],
        sample: Sample,
        *,
        slots: int,
        rows: int | None = None,
        home: Memory | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.slots = slots
        self._rows = 2 * slots if rows is None else rows
        self._engines = dict(zip(sample.components, engines, strict=True))
        self._denoiser = sample.components[-1]
        denoiser = self._engines[self._denoiser]
        # Engines with different memories exchange tensors on the host.
        self.memory: Memory = denoiser.memory if all(e.memory is denoiser.memory for e in engines) else HOST
        self._home = home
        self._on_close = on_close
        self._bucket = sample.bucket
        self._members: list[_Member] = []
        self._active: tuple[Sample, ...] = ()
        self._sort_inputs(sample)
        self._make_buffers(sample)
        self._launches: dict[tuple[int, int], _Launch] = {}
        self._captured: dict[object, Callable[[], None]] = {}
        self._launch: _Launch | None = None
        self._plan: list[_Evaluation] = []
        self._next = 0
        self._now = 0
        self._flows_are_zero = False
        self._closed = False
        self._lock = threading.RLock()

    def _sort_inputs(self, sample: Sample) -> None:
        """Divide the inputs of all components by how they are filled."""
        self._numbers: dict[Field, TensorSpec] = {}
        self._fixed: dict[Field, TensorSpec] = {}
        self._carried: dict[str, TensorSpec] = {}
        shared = {t.name for t in self._engines[self._denoiser].spec.inputs if _is_number(t)}
        last = self._denoiser
        for component in (last, *(name for name in self._engines if name != last)):
            for tensor in self._engines[component].spec.inputs:
                if _is_number(tensor):
                    if component == last or tensor.name not in shared:
                        self._numbers[component, tensor.name] = tensor
                elif tensor.changes == "request" and tensor.name != "row_sample":
                    self._fixed[component, tensor.name] = tensor
                elif tensor.changes == "evaluation" and tensor.name != "noise":
                    self._carried[tensor.name] = tensor
        self._shared = shared

    def _make_buffers(self, sample: Sample) -> None:
        spec = self._engines[self._denoiser].spec
        height, width = sample.state.shape[2:]
        axes = {"S": self.slots, "R": self._rows, "h": height, "w": width}
        zeros = self.memory.zeros

        def filled(component: str, tensor: TensorSpec) -> Buffer:
            count = self.slots if tensor.owner == "sample" else self._rows
            return zeros((count, *sample.inputs[component][tensor.name].shape[1:]), tensor.dtype)

        self._states = [zeros(spec.input("state").resolve(axes), np.float32) for _ in range(2)]
        self._noise = zeros(spec.input("noise").resolve(axes), np.float32)
        on_host = self._noise if isinstance(self._noise, np.ndarray) else np.zeros(self._noise.shape, np.float32)
        self._fresh: F32 = on_host
        self._row_sample = zeros((self._rows,), np.int64)
        self._constant = {field: filled(field[0], tensor) for field, tensor in self._fixed.items()}
        copies = 3 if len(self._engines) > 1 else 1
        self._flows = [
            {name: zeros(tensor.resolve(axes), tensor.dtype) for name, tensor in self._carried.items()}
            for _ in range(copies)
        ]
        self._size = NumberLayout(self._numbers, self.slots, self._rows).size
        self._current = zeros((self._size,), np.float32)
        self._table_on_host = np.zeros((_WINDOW, self._size), np.float32)
        self._table = self._table_on_host if self.memory is HOST else zeros(self._table_on_host.shape, np.float32)
        self._noise_table: Buffer | None = None

    # -- members ------------------------------------------------------------------------------------------------------

    @property
    def active(self) -> tuple[Sample, ...]:
        """The samples in it, in the order of their slots."""
        return self._active

    def fits(self, sample: Sample) -> bool:
        """Whether the sample can be put in now."""
        free = len(self._members) < self.slots and self._used_rows + sample.rows <= self._rows
        return free and not sample.finished and sample.bucket == self._bucket

    def has_room(self, sample: Sample, slots: int, rows: int) -> bool:
        """Whether that many samples like this one, on that many rows, would fit if it were empty."""
        return self.slots >= slots and self._rows >= rows and sample.bucket == self._bucket

    @serialised
    def put(self, sample: Sample) -> None:
        """Put a sample in; it takes part from the next evaluation on, continuing at its own position.

        Raises:
            UsageError: it does not fit, is finished or in a batch already.

        """
        self._check(sample)
        sample.begin()
        member = _Member(sample, len(self._members), tuple(range(self._used_rows, self._used_rows + sample.rows)))
        member.numbers = packed(self._numbers, sample.numbers, sample.evaluations)
        if not self._members:
            self._now = 0  # captured loops begin with the first of the two states
        copy = self.memory.copy
        copy(self._states[self._now][member.slot], _readable(sample, self.memory))
        for (component, name), buffer in self._constant.items():
            source = sample.inputs[component][name]
            first = member.slot if self._fixed[component, name].owner == "sample" else member.rows[0]
            copy(buffer[first : first + source.shape[0]], source)
        sample._batch = self
        self._members.append(member)
        self._members_changed()

    def _check(self, sample: Sample) -> None:
        self.check_open()
        checked_samples([sample])
        if sample._batch is not None:
            raise UsageError("this sample is in a batch already")
        if sample.finished:
            raise UsageError(f"all {sample.evaluations} evaluations of this sample are done")
        here, there = self._bucket, sample.bucket
        for name in {**here, **there}:
            if here.get(name) != there.get(name):
                difference = "" if name == "the weights" else f": {there.get(name)}, and {here.get(name)} in the batch"
                raise UsageError(
                    f"samples of one batch share sizes, length of text, ControlNets and weights: {name} of this sample "
                    f"differ{difference}"
                )
        if len(self._members) == self.slots:
            raise UsageError(f"all {self.slots} slots of this batch are taken")
        if self._used_rows + sample.rows > self._rows:
            raise UsageError(f"this batch has {self._rows} rows, of which {self._used_rows} are taken")

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
        self._remove([self._member(sample)])

    def place_of(self, sample: Sample) -> tuple[Memory, Buffer]:
        """Return where a sample's state is: this batch's memory, and the part of its buffer."""
        return self.memory, self._states[self._now][self._member(sample).slot]

    def _member(self, sample: Sample) -> "_Member":
        for member in self._members:
            if member.sample is sample:
                return member
        raise UsageError("this sample is not in this batch")

    @property
    def _used_rows(self) -> int:
        return sum(member.sample.rows for member in self._members)

    def _remove(self, leaving: Sequence["_Member"]) -> None:
        """Copy states out, and move members from the end into the slots and rows that are free."""
        memory, state = self.memory, self._states[self._now]
        for member in leaving:
            sample = member.sample
            if self._home is memory:
                sample.state = memory.zeros(state.shape[1:], state.dtype)
                memory.copy(sample.state, state[member.slot])
                sample._memory = memory
            else:
                sample.state, sample._memory = np.array(memory.read(state[member.slot])), HOST
            sample._batch = None
            self._members.remove(member)
        self._fill_gaps()
        self._members_changed()

    def _fill_gaps(self) -> None:
        copy = self.memory.copy
        samples, rows = len(self._members), self._used_rows
        of_samples, of_rows = (
            [buffer for field, buffer in self._constant.items() if self._fixed[field].owner == owner]
            for owner in ("sample", "row")
        )
        free_slots = iter(sorted(set(range(samples)) - {member.slot for member in self._members}))
        free_rows = iter(sorted(set(range(rows)) - {row for member in self._members for row in member.rows}))
        for member in self._members:
            if member.slot >= samples:
                slot = next(free_slots)
                for buffer in (self._states[self._now], *of_samples):
                    copy(buffer[slot], buffer[member.slot])
                member.slot = slot
            moved = {row: next(free_rows) for row in member.rows if row >= rows}
            for row, free in moved.items():
                for buffer in of_rows:
                    copy(buffer[free], buffer[row])
            member.rows = tuple(moved.get(row, row) for row in member.rows)

    def _members_changed(self) -> None:
        """Discard what was computed for the former members."""
        self._members.sort(key=lambda member: member.slot)
        self._active = tuple(member.sample for member in self._members)
        self._launch = None
        self._plan = []

    # -- running ------------------------------------------------------------------------------------------------------

    @serialised
    def step(self) -> list[Sample]:
        """Run one evaluation of every active sample; return those that are finished, which have left the batch.

        Raises:
            UsageError: there is none.
            EngineError: an engine failed.

        """
        if self._next >= len(self._plan):
            self._fill(_WINDOW)
        launch, evaluation, i = self._launch, self._plan[self._next], self._next
        assert launch is not None
        if evaluation.with_noise:
            self._sample_noise(evaluation.with_noise)
            samples = len(self._members)
            if self._noise is not self._fresh:
                self.memory.copy(self._noise[:samples], self._fresh[:samples])
        self.memory.copy(self._current, self._table[i])
        self._run(launch, evaluation.before)
        self._next += 1
        return self._advance(1)

    @serialised
    def finish(self) -> list[Sample]:
        """Run every active sample to its end, with as few launches as the memory can; return them.

        Where they all have the same number of evaluations left, these are run at once, on a GPU as one captured CUDA
        graph. Else :meth:`step` is called until all are finished.

        Raises:
            UsageError: there is none.
            EngineError: an engine failed.

        """
        remaining = {_remaining(member.sample) for member in self._members}
        if len(remaining) > 1:
            finished = []
            while self._members:
                finished += self.step()
            return finished
        count = remaining.pop() if remaining else 0
        self._make_room(count)
        self._fill(count)
        launch, plan = self._launch, self._plan
        assert launch is not None
        noisy = [i for i in range(count) if plan[i].with_noise]
        self._sample_noise_ahead([plan[i].with_noise for i in noisy])
        rows, noise = {i: row for row, i in enumerate(noisy)}, self._noise_table
        before = tuple(evaluation.before for evaluation in plan)
        self._flows_are_zero = False

        def work() -> None:
            for i in range(count):
                if i in rows:
                    assert noise is not None
                    self.memory.copy(self._noise, noise[rows[i]])
                self.memory.copy(self._current, self._table[i])
                self._run(launch, before[i])

        key = (launch.key, count, tuple(noisy), before, self._now)
        if key not in self._captured:
            while len(self._captured) >= _MOST_CAPTURED:
                del self._captured[next(iter(self._captured))]
            self._captured[key] = self.memory.capture(work)
        now = self._now
        self._captured[key]()
        self._now, self._flows_are_zero = (now + count) % 2, False
        return self._advance(count)

    def _fill(self, most: int) -> None:
        """Copy the numbers of the next evaluations to the device, and plan what runs at each."""
        self.check_open()
        if not self._members:
            raise UsageError("there is no sample in this batch")
        if self._launch is None:
            self._launch = self._launch_for(len(self._members), self._used_rows)
            row_sample = np.zeros(self._launch.key[1], np.int64)
            for member in self._members:
                member.places = self._launch.layout.places(member.slot, member.rows)
                row_sample[list(member.rows)] = member.slot
            self.memory.copy(self._row_sample[: len(row_sample)], row_sample)
            self._flows_are_zero = False
        count = min(most, *(_remaining(member.sample) for member in self._members))
        table = self._table_on_host[:count]
        table[:] = 0
        for member in self._members:
            first = member.sample.position
            table[:, member.places] = member.numbers[first : first + count]
        if self._table is not self._table_on_host:
            self.memory.copy(self._table[:count], table)
        self._plan = self._plan_evaluations(count)
        self._next = 0

    def _plan_evaluations(self, count: int) -> "list[_Evaluation]":
        """Return what the next evaluations do beside the denoiser."""
        noise_of, before = [], np.zeros(count, bool)
        for member in self._members:
            sample, first = member.sample, member.sample.position
            noise_of.append(sample.schedule.needs_noise[first : first + count].tolist())
            for runs in sample.runs.values():
                before |= runs[first : first + count]
        return [
            _Evaluation(tuple(m for m, needed in zip(self._members, members_need, strict=True) if needed), runs)
            for members_need, runs in zip(zip(*noise_of, strict=True), before.tolist(), strict=True)
        ]

    def _sample_noise(self, members: Iterable["_Member"], into: F32 | None = None) -> None:
        for member in members:
            target = self._fresh if into is None else into
            target[member.slot] = member.sample.noise.normal(target.shape[1:])

    def _run(self, launch: "_Launch", before: bool) -> None:
        """Launch every component once."""
        if before:
            for call in launch.before[self._now]:
                call()
            self._flows_are_zero = False
        elif launch.carried and not self._flows_are_zero:
            for buffer in launch.carried:
                self.memory.clear(buffer)
            self._flows_are_zero = True
        launch.denoiser[self._now]()
        self._now = 1 - self._now

    def _advance(self, evaluations: int) -> list[Sample]:
        done = []
        for member in self._members:
            member.sample.position += evaluations
            if member.sample.finished:
                done.append(member)
        if done:
            self._remove(done)
        return [member.sample for member in done]

    # -- binding ------------------------------------------------------------------------------------------------------

    def _launch_for(self, samples: int, rows: int) -> "_Launch":
        """Return the engines' calls on the first part of the buffers; bound at first use."""
        key = (samples, rows)
        if key not in self._launches:
            self._launches[key] = self._bind(samples, rows)
        return self._launches[key]

    def _bind(self, samples: int, rows: int) -> "_Launch":
        layout = NumberLayout(self._numbers, samples, rows)
        numbers = layout.views(self._current)
        states = [state[:samples] for state in self._states]
        # What is carried alternates between two buffers; the first of the three stays zero.
        at = dict.fromkeys(self._carried, 0)
        before: list[list[Callable[[], None]]] = []
        for component, engine in self._engines.items():
            inputs = self._inputs_of(component, engine.spec, numbers, samples, rows)
            inputs |= {name: self._flows[i][name][:rows] for name, i in at.items() if _has(engine.spec, name)}
            if component == self._denoiser:
                calls = [engine.prepare({**inputs, "state": states[i]}, {"next_state": states[1 - i]}) for i in (0, 1)]
                carried = [self._flows[i][name] for name, i in at.items() if i]
                return _Launch((samples, rows), layout, before, calls, carried)
            at |= {name: 1 + i % 2 for name, i in at.items() if f"next_{name}" in _names(engine.spec.outputs)}
            outputs = {t.name: self._flows[at[_before(t)]][_before(t)][:rows] for t in engine.spec.outputs}
            before.append([engine.prepare({**inputs, "state": state}, outputs) for state in states])
        raise AssertionError("the denoiser is the last component")

    def _inputs_of(
        self, component: str, spec: ComponentSpec, numbers: Mapping[Field, Buffer], samples: int, rows: int
    ) -> dict[str, Buffer]:
        """Return the inputs of a component, except its state and what one component passes to the next."""
        counts = {"sample": samples, "row": rows}
        available: dict[str, Buffer] = {"row_sample": self._row_sample[:rows], "noise": self._noise[:samples]}
        available |= {name: buffer for (owner, name), buffer in numbers.items() if owner == self._denoiser}
        available |= {name: buffer for (owner, name), buffer in numbers.items() if owner == component}
        for (owner, name), buffer in self._constant.items():
            if owner == component:
                available[name] = buffer[: counts[self._fixed[owner, name].owner]]
        return {name: buffer for name, buffer in available.items() if _has(spec, name)}

    def _make_room(self, evaluations: int) -> None:
        """Make the table as long as a captured loop needs; loops that were captured with the old one are dropped."""
        if evaluations > len(self._table_on_host):
            self._captured.clear()
            length = -(-evaluations // _WINDOW) * _WINDOW
            self._table_on_host = np.zeros((length, self._size), np.float32)
            on_host = self.memory is HOST
            self._table = self._table_on_host if on_host else self.memory.zeros((length, self._size), np.float32)

    def _sample_noise_ahead(self, noisy: Sequence[tuple["_Member", ...]]) -> None:
        """Put the noise of all evaluations into a table."""
        if noisy and (self._noise_table is None or self._noise_table.shape[0] < len(noisy)):
            self._captured.clear()
            length = -(-len(noisy) // _WINDOW) * _WINDOW
            self._noise_table = self.memory.zeros((length, *self._noise.shape), np.float32)
        for row, members in enumerate(noisy):
            assert self._noise_table is not None
            fresh = np.zeros(self._noise.shape, np.float32)
            self._sample_noise(members, fresh)
            self.memory.copy(self._noise_table[row], fresh)

    # -- closing ------------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Batch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @serialised
    def close(self) -> None:
        """Take the samples out, and release the buffers and what is bound to them; calling it twice is harmless."""
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
            self._members, self._active, self._plan = [], (), []
            self._launches.clear()
            self._captured.clear()
            self._launch = self._noise_table = None
            self._constant.clear()
            self._states, self._flows = [], []
            if self._on_close is not None:
                self._on_close()


class _Member:
    """A sample in a batch: its slot, its rows, and the places of its numbers in the table."""

    numbers: F32
    places: NDArray[np.intp]

    def __init__(self, sample: Sample, slot: int, rows: tuple[int, ...]) -> None:
        self.sample = sample
        self.slot = slot
        self.rows = rows


class _Evaluation:
    """What one evaluation does: which members need noise, and whether the components before the denoiser run."""

    __slots__ = ("before", "with_noise")

    def __init__(self, with_noise: tuple[_Member, ...], before: bool) -> None:
        self.with_noise = with_noise
        self.before = before


class _Launch:
    """The engines' calls for S samples on R rows; two of each, as the state alternates between two buffers."""

    def __init__(
        self,
        key: tuple[int, int],
        layout: NumberLayout,
        before: Sequence[Sequence[Callable[[], None]]],
        denoiser: Sequence[Callable[[], None]],
        carried: Sequence[Buffer],
    ) -> None:
        self.key = key
        self.layout = layout
        self.before = [[calls[i] for calls in before] for i in (0, 1)]
        self.denoiser = denoiser
        self.carried = carried


def _remaining(sample: Sample) -> int:
    """Return how many evaluations a sample has left."""
    return sample.evaluations - sample.position


def _is_number(tensor: TensorSpec) -> bool:
    return tensor.changes == "evaluation" and tensor.is_number and tensor.name != "noise"


def _has(spec: ComponentSpec, name: str) -> bool:
    return name in _names(spec.inputs)


def _names(tensors: Iterable[TensorSpec]) -> set[str]:
    return {tensor.name for tensor in tensors}


def _before(output: TensorSpec) -> str:
    """Return the name of the input that an output becomes."""
    return output.name.removeprefix("next_")


def _readable(sample: Sample, memory: Memory) -> Buffer:
    """Return a sample's state where ``memory`` can copy it from."""
    return sample.state if sample._memory in (memory, HOST) else sample._memory.read(sample.state)
