"""One image being denoised, with everything that belongs to it."""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...engines.component_specs import STATE_SLOTS
from ...engines.errors import UsageError
from ...engines.memory import HOST, Buffer, Memory
from ..schedule import Schedule
from .guidance import Guidance

if TYPE_CHECKING:
    from ..request.job import Job
    from .batch import Batch

__all__ = ["DENOISER", "NoiseStream", "Sample", "checked_samples", "initial_state", "step_numbers"]

F32 = NDArray[np.float32]

DENOISER = "denoiser"
"""The component that takes a step; the last one of every evaluation."""


class NoiseStream(Protocol):
    """A sample's source of fresh noise."""

    def normal(self, shape: tuple[int, ...], /) -> F32:
        """Return the next standard normal numbers of that shape."""


@dataclass(eq=False, kw_only=True)
class Sample:
    """One image being denoised: nothing in it is shared with another one.

    Make samples with :meth:`~sdengine.runtime.pipeline.Pipeline.prepare`.

    Attributes:
        schedule: what the solver does, evaluation by evaluation; N of them.
        rows: how many rows of the network it takes: two with classifier-free guidance, else one.
        components: those that run at each evaluation, in order; the last one is the denoiser.
        inputs: by component and input, the constant ones: ``[1, ...]``, or ``[rows, ...]`` of what belongs to rows.
        numbers: by component and input, those that change with the evaluation, float32: ``[N, ...]``, and
            ``[N, rows, ...]`` for what belongs to rows. What a component shares with the denoiser is listed for the
            denoiser only.
        runs: by component before the denoiser, bool ``[N]``: whether it has anything to add at that evaluation.
        noise: its stream.
        weights: identifies the weights of the components.
        seed: of its noise, for the result.
        job: what it was prepared from.
        index: which of the job's images it is.
        warnings: what the user should know about how it was prepared.
        before: samples that must be finished before this one begins, as those of a prior.
        embeds: what it is conditioned on, by name, as far as that is known.
        position: how many evaluations are done.

    """

    schedule: Schedule
    rows: int
    components: tuple[str, ...]
    inputs: Mapping[str, Mapping[str, Buffer]]
    numbers: Mapping[str, Mapping[str, F32]]
    runs: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    noise: NoiseStream
    state: Buffer
    weights: Hashable = None
    seed: int = 0
    job: "Job | None" = None
    index: int = 0
    warnings: tuple[str, ...] = ()
    before: "tuple[Sample, ...]" = ()
    embeds: dict[str, F32] = field(default_factory=dict)
    position: int = 0
    _on_begin: Callable[[], Mapping[str, F32]] | None = None
    _memory: Memory = HOST
    _batch: "Batch | None" = None

    @property
    def evaluations(self) -> int:
        """N, how many evaluations it takes from its first step to its last."""
        return self.schedule.evaluations

    def begin(self) -> None:
        """Take over what the samples before have come to; once, and before the first evaluation.

        Raises:
            UsageError: they are not finished.

        """
        left = sum(not sample.finished for sample in self.before)
        if left:
            raise UsageError(f"{left} samples that this one begins with are not finished: denoise() takes care of them")
        if self._on_begin is not None:
            self.embeds.update(self._on_begin())
            self._on_begin = None

    @property
    def finished(self) -> bool:
        """Whether all evaluations are done."""
        return self.position >= self.schedule.evaluations

    @property
    def timestep(self) -> float | None:
        """The timestep of the last evaluation; None before the first."""
        return float(self.schedule.timesteps[self.position - 1]) if self.position else None

    @property
    def step(self) -> int:
        """How many steps are done, as a user counts them; some solvers evaluate twice in a step."""
        index = self.schedule.step_index
        return int(index[self.position]) if self.position < len(index) else self.schedule.steps

    @property
    def place(self) -> tuple[Memory, Buffer]:
        """Where its state ``[K, C, h, w]`` is now: memory and buffer, which are the batch's while it is in one.

        ``[0]`` of the buffer is the latent.
        """
        return (self._memory, self.state) if self._batch is None else self._batch.place_of(self)

    @property
    def latent(self) -> F32:
        """The current latent, ``[C, h, w]``, on the host."""
        memory, state = self.place
        return np.array(memory.read(state[0]), np.float32)

    @latent.setter
    def latent(self, value: Any) -> None:
        memory, state = self.place
        latent = np.ascontiguousarray(value, np.float32)
        if latent.shape != state.shape[1:]:
            raise UsageError(f"a latent of shape {list(latent.shape)} in place of one of {list(state.shape[1:])}")
        memory.copy(state[0], latent)

    @property
    def bucket(self) -> dict[str, object]:
        """What must be equal for samples to share a batch, by name."""
        own = {
            f"{component}'s {name}": (buffer.dtype.name, list(buffer.shape[1:]))
            for component, buffers in self.inputs.items()
            for name, buffer in buffers.items()
        }
        latent = ("float32", list(self.state.shape[1:]))
        return {"what runs": list(self.components), "the weights": self.weights, "the latent": latent, **own}


def initial_state(latent: F32) -> F32:
    """Return the state that a solver begins with: the latent ``[C, h, w]``, and an empty memory behind it."""
    state = np.zeros((STATE_SLOTS, *latent.shape), np.float32)
    state[0] = latent
    return state


def checked_samples(samples: Iterable[Sample]) -> list[Sample]:
    """Return samples as a list.

    Raises:
        UsageError: they are no samples.

    """
    if isinstance(samples, Sample):
        raise UsageError("one sample in place of a list of samples")
    listed = list(samples)
    for sample in listed:
        if not isinstance(sample, Sample):
            raise UsageError(f"{type(sample).__name__} in place of a sample: prepare() returns a list of them")
    return listed


def step_numbers(schedule: Schedule, guidance: Guidance) -> dict[str, F32]:
    """Return what schedule and guidance say to the denoiser, by input, ``[N, ...]``."""
    count = schedule.evaluations
    return {
        "timestep": np.repeat(np.asarray(schedule.timesteps, np.float32)[:, None], guidance.rows, axis=1),
        "input_scale": np.asarray(schedule.input_scale, np.float32),
        "mix": guidance.mix,
        "rescale": guidance.rescale,
        "predict": np.asarray(schedule.predict, np.float32),
        "clip": np.full(count, schedule.clip, np.float32),
        "update": np.asarray(schedule.update, np.float32),
    }
