"""The loop over the steps: one engine call for each, and numbers copied into its inputs; no arithmetic here.

A loop is made for a set of shapes and used for one request after another, so that its buffers, and what engines tie to
their addresses, stay. It works in the memory of its engines: on a GPU it only gives work, and nothing waits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engines.engine import Engine
from ..engines.memory import HOST, Buffer, Mark, Memory
from .guidance import Guidance
from .schedule import Schedule
from .seeds import NoiseStreams

__all__ = ["Drawing", "Loop", "LoopShape", "Step"]

F32 = NDArray[np.float32]

_CHUNK = 64
"""Tables have room for a multiple of so many evaluations, so that few requests need other ones."""

_MOST_RECORDINGS = 4


@dataclass(frozen=True, kw_only=True)
class LoopShape:
    """What a loop is made for.

    Attributes:
        samples: S.
        rows: R.
        tokens: T, of a row's text.
        height: h, in latents.
        width: w, in latents.
        evaluations: how many there is room for; rounded up.

    """

    samples: int
    rows: int
    tokens: int
    height: int
    width: int
    evaluations: int

    @property
    def room(self) -> int:
        """Evaluations that tables are made for."""
        return -(-self.evaluations // _CHUNK) * _CHUNK

    @property
    def axes(self) -> dict[str, int]:
        """Lengths by the specs' names."""
        return {"S": self.samples, "R": self.rows, "T": self.tokens, "h": self.height, "w": self.width}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What is to be drawn.

    Attributes:
        schedule: the solver's numbers.
        guidance: rows and how they mix.
        latent: float32 [S, C, h, w], as the schedule starts.
        inputs: the denoiser's other inputs that stay as they are: the conditioner's outputs and, for inpainting,
            ``extra``, or ``mask`` and ``known``. Without the last two everything is drawn.
        controls: for each ControlNet the inputs that stay as they are.
        control_scales: for each ControlNet float32 [N, R, maps]; all zero where the network is not run.
        noise: streams of the samples.

    """

    schedule: Schedule
    guidance: Guidance
    latent: F32
    inputs: Mapping[str, Buffer]
    noise: NoiseStreams
    controls: Sequence[Mapping[str, Buffer]] = ()
    control_scales: Sequence[F32] = ()


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is known after an evaluation has been given to the engine.

    Attributes:
        evaluation: index, from 0.
        step: the user's step that it belongs to, from 0.
        timestep: what the network was told.
        last_of_step: whether the step is done.
        latents: of each sample float32 [C, h, w]; views of the state, which may be written to.

    """

    evaluation: int
    step: int
    timestep: float
    last_of_step: bool
    latents: Sequence[Buffer]


class Loop:
    """Buffers of a set of shapes, bound to a denoiser and ControlNets; each ControlNet adds to the one before it.

    Args:
        denoiser: the open denoiser.
        controls: open ControlNets.
        shape: what it is made for.
        record: whether to give the engines all steps at once, where they can take that.

    Attributes:
        memory: where its buffers are.
        record: as given.

    """

    def __init__(self, denoiser: Engine, controls: Sequence[Engine], shape: LoopShape, *, record: bool = False) -> None:
        self.shape = shape
        # Engines that do not share their memory meet on the host.
        self.memory: Memory = denoiser.memory if all(c.memory is denoiser.memory for c in controls) else HOST
        self.record = record
        self._recordings: dict[object, Callable[[], None]] = {}
        self._drawing: Drawing | None = None
        self._noise: Buffer | None = None
        self._marks: list[tuple[Mark, Mark]] = []
        inputs = {tensor.name: tensor for tensor in denoiser.spec.inputs}
        self._slots = {name: self._zeros(denoiser, name) for name in inputs if not name.startswith("residual_")}
        state = self._slots.pop("state")
        self._states: tuple[Buffer, ...] = (state, self.memory.zeros(state.shape, state.dtype))
        per_step = ("timestep", "input_scale", "predict", "clip", "update", *(["blend"] if "blend" in inputs else []))
        self._tables = {name: self._table(self._slots[name]) for name in per_step}
        self._controls = [_ControlBuffers(self, net) for net in controls]
        residuals = [{n: self._zeros(denoiser, n) for n in inputs if n.startswith("residual_")} for _ in range(3)]
        self._once = self._bound(denoiser, controls, residuals if controls else residuals[:1] * 3)

    def _zeros(self, engine: Engine, name: str) -> Buffer:
        tensor = engine.spec.input(name)
        return self.memory.zeros(tensor.resolve(self.shape.axes), tensor.dtype)

    def _table(self, slot: Buffer) -> Buffer:
        return self.memory.zeros((self.shape.room, *slot.shape), slot.dtype)

    def _bound(
        self, denoiser: Engine, controls: Sequence[Engine], residuals: Sequence[dict[str, Buffer]]
    ) -> list[Callable[[], None]]:
        """Bind the denoiser in both directions: its state goes to and fro between two buffers."""
        before, *others = residuals
        for i, (net, buffers) in enumerate(zip(controls, self._controls, strict=True)):
            after = others[i % 2]
            shared = {name: self._slots[name] for name in ("row_sample", "timestep", "input_scale")}
            outputs = {f"next_{name}": array for name, array in after.items()}
            inputs = {**shared, **buffers.slots, **before}
            buffers.once = [net.prepare({**inputs, "state": state}, outputs) for state in self._states]
            before = after
        self._residuals = before
        inputs = {**self._slots, **before}
        return [
            denoiser.prepare({**inputs, "state": self._states[i]}, {"next_state": self._states[1 - i]})
            for i in range(2)
        ]

    # -- filling ------------------------------------------------------------------------------------------------------

    def load(self, drawing: Drawing) -> None:
        """Take in what is to be drawn; everything is copied.

        Args:
            drawing: of this loop's shape.

        """
        schedule, samples = drawing.schedule, self.shape.samples
        tables = {"timestep": (schedule.timesteps, self.shape.rows), "input_scale": (schedule.input_scale, samples)}
        tables |= {"update": (schedule.update, samples), "blend": (schedule.blend, samples)}
        clip = np.full(schedule.evaluations, schedule.clip)
        tables |= {"predict": (schedule.predict, samples), "clip": (clip, samples)}
        for name, table in self._tables.items():
            values, repeats = tables[name]
            self._fill(table, np.repeat(np.asarray(values, np.float32)[:, None], repeats, axis=1))
        for name, buffer in self._fixed(drawing).items():
            self.memory.copy(self._slots[name], buffer)
        for buffers, given, scales in zip(self._controls, drawing.controls, drawing.control_scales, strict=True):
            for name, buffer in given.items():
                self.memory.copy(buffers.slots[name], buffer)
            self._fill(buffers.scales, scales)
        self.memory.clear(self._states[0])
        for state, latent in zip(self._each(self._states[0]), drawing.latent, strict=True):
            self.memory.copy(state, latent)
        self._drawing = drawing

    def _fixed(self, drawing: Drawing) -> dict[str, Buffer]:
        """Gather the inputs that stay as they are."""
        guidance = drawing.guidance
        found: dict[str, Buffer] = {"row_sample": guidance.row_sample, "mix": guidance.mix}
        found |= {"rescale": guidance.rescale, **drawing.inputs}
        if "mask" in self._slots and "mask" not in found:
            found |= {"mask": np.ones(self._slots["mask"].shape, np.float32)}
            found |= {"known": np.zeros(self._slots["known"].shape, np.float32)}
        missing = set(self._slots) - set(found) - set(self._tables) - {"noise"}
        assert not missing, f"the last request's {missing} would be used"
        return found

    def _fill(self, table: Buffer, values: F32) -> None:
        self.memory.copy(table[: len(values)], values)

    def _each(self, state: Buffer) -> list[Buffer]:
        """Return the latent of each sample."""
        return [state[i][0] for i in range(self.shape.samples)]

    # -- running ------------------------------------------------------------------------------------------------------

    def steps(self, *, watched: bool = False) -> Iterator[Step]:
        """Draw, yielding after each evaluation; or once, after all of them, where they are given all at once.

        Args:
            watched: somebody looks at each step, or shows how far it is: the host then goes no further ahead than one
                evaluation, and all steps are given one by one.

        """
        drawing = self._drawing
        assert drawing is not None, "load() comes first"
        self._marks = []
        if self.record and not watched:
            yield self._recorded(drawing)
            return
        shape = self._states[0].shape[2:]
        for i in range(drawing.schedule.evaluations):
            start = self.memory.mark()
            if drawing.schedule.noise_draws[i]:
                self.memory.copy(self._slots["noise"], drawing.noise.draw(shape))
            self._evaluate(i, [bool(scale[i].any()) for scale in drawing.control_scales])
            self._marks.append((start, self.memory.mark()))
            if watched and i:
                self.memory.wait(self._marks[i - 1][1])
            yield self._step(drawing.schedule, i)

    def _evaluate(self, i: int, controlled: Sequence[bool]) -> None:
        copy = self.memory.copy
        for name, table in self._tables.items():
            copy(self._slots[name], table[i])
        if any(controlled):
            for buffers in self._controls:
                copy(buffers.slots["scale"], buffers.scales[i])
                buffers.once[i % 2]()
        elif controlled:
            for buffer in self._residuals.values():
                self.memory.clear(buffer)
        self._once[i % 2]()

    def _step(self, schedule: Schedule, i: int) -> Step:
        last = i + 1 == schedule.evaluations or schedule.step_index[i + 1] != schedule.step_index[i]
        return Step(
            evaluation=i,
            step=int(schedule.step_index[i]),
            timestep=float(schedule.timesteps[i]),
            last_of_step=bool(last),
            latents=self._each(self._states[1 - i % 2]),
        )

    def _recorded(self, drawing: Drawing) -> Step:
        """Give all evaluations at once. What differs between requests lies in buffers, or is part of the key."""
        count = drawing.schedule.evaluations
        draws = [i for i in range(count) if drawing.schedule.noise_draws[i]]
        controlled = [[bool(scale[i].any()) for scale in drawing.control_scales] for i in range(count)]
        self._draw_ahead(drawing.noise, len(draws))
        rows = {i: row for row, i in enumerate(draws)}

        def work() -> None:
            for i in range(count):
                if i in rows:
                    assert self._noise is not None
                    self.memory.copy(self._slots["noise"], self._noise[rows[i]])
                self._evaluate(i, controlled[i])

        key = (count, tuple(draws), tuple(any(nets) for nets in controlled))
        if key not in self._recordings:
            while len(self._recordings) >= _MOST_RECORDINGS:
                del self._recordings[next(iter(self._recordings))]
            self._recordings[key] = self.memory.repeated(work)
        start = self.memory.mark()
        self._recordings[key]()
        self._marks.append((start, self.memory.mark()))
        return self._step(drawing.schedule, count - 1)

    def _draw_ahead(self, noise: NoiseStreams, draws: int) -> None:
        """Put the noise of all steps into a table."""
        slot = self._slots["noise"]
        if draws and (self._noise is None or self._noise.shape[0] < draws):
            self._recordings.clear()  # they remember where the old table is
            self._noise = self.memory.zeros((-(-draws // _CHUNK) * _CHUNK, *slot.shape), slot.dtype)
        for row in range(draws):
            assert self._noise is not None
            self.memory.copy(self._noise[row], noise.draw(slot.shape[1:]))

    def close(self) -> None:
        """Let buffers and what is bound to them go, before the engines are closed."""
        self.memory.wait(self.memory.mark())  # after an error they may still be at work
        self._recordings.clear()
        self._marks.clear()
        self._once.clear()
        self._controls.clear()
        for buffers in (self._slots, self._tables, self._residuals):
            buffers.clear()
        self._states, self._noise, self._drawing = (), None, None

    def milliseconds(self) -> list[float]:
        """Wait for what was given; return how long each evaluation took, or all at once."""
        for _, end in self._marks[-1:]:
            self.memory.wait(end)
        return [self.memory.milliseconds(start, end) for start, end in self._marks]


class _ControlBuffers:
    """What a ControlNet is given."""

    def __init__(self, loop: Loop, net: Engine) -> None:
        own = [t.name for t in net.spec.inputs if not t.name.startswith("residual_")]
        shared = ("state", "row_sample", "timestep", "input_scale")
        self.slots = {name: loop._zeros(net, name) for name in own if name not in shared}
        self.scales = loop._table(self.slots["scale"])
        self.once: list[Callable[[], None]] = []
