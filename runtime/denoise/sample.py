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
"""The component that takes a step: the last one that runs at every evaluation."""


class NoiseStream(Protocol):
    """A sample's source of fresh noise."""

    def normal(self, shape: tuple[int, ...], /) -> F32:
        """Return the next standard normal numbers, float32 of that shape."""


@dataclass(eq=False, kw_only=True)
class Sample:
    """One image being denoised; it shares nothing that changes with other samples.

    Make samples with :meth:`~sdengine.runtime.pipeline.Pipeline.prepare`.

    Attributes:
        schedule: the solver as a table of matrices, for N evaluations.
        rows: how many rows it has in the network's batch: two with classifier-free guidance, else one.
        components: those that run at each evaluation, in order: its ControlNets, if any, and the denoiser.
        inputs: by component and input, those that stay constant: ``[1, ...]`` for the sample, or ``[rows, ...]`` for
            its rows.
        numbers: by component and input, those that change with the evaluation, float32: ``[N, ...]`` for the sample,
            or ``[N, rows, ...]`` for its rows. An input that a component has in common with the denoiser is listed
            for the denoiser only.
        runs: by component before the denoiser, bool ``[N]``: whether it adds anything at that evaluation.
        noise: the source of its noise.
        state: float32 ``[K, C, h, w]``: ``[0]`` is the latent, the rest earlier predictions that the solver uses.
            While the sample is in a batch, its state is there: see :attr:`place`.
        weights: identifies the weights of the components.
        seed: of its noise, for the result.
        job: the job that it was prepared from.
        index: its index among the job's images.
        warnings: what the user should know about how it was prepared.
        before: samples that must be finished before this one begins: those of a prior.
        text: the embeddings of its prompts, by input of the conditioner, float32 ``[rows, ...]``.
        guidance_scale: the current one; a callback may change it.
        nsfw: whether the safety checker has flagged its image; None where none has looked at it.
        embeds: the embeddings of images that it is conditioned on, by name; empty until they are computed.
        position: how many evaluations have run.

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
    text: Mapping[str, F32] = field(default_factory=dict)
    guidance_scale: float = 1.0
    nsfw: bool | None = None
    embeds: dict[str, F32] = field(default_factory=dict)
    position: int = 0
    _on_begin: Callable[[], Mapping[str, F32]] | None = None
    _memory: Memory = HOST
    _batch: "Batch | None" = None

    @property
    def evaluations(self) -> int:
        """N, the number of evaluations from its first step to its last."""
        return self.schedule.evaluations

    def begin(self) -> None:
        """Compute the inputs that follow from the samples in :attr:`before`; a second call does nothing.

        Raises:
            UsageError: those samples are not finished.

        """
        unfinished = sum(not sample.finished for sample in self.before)
        if unfinished:
            raise UsageError(
                f"{unfinished} samples of the prior that this one waits for are not finished: denoise() runs them first"
            )
        if self._on_begin is not None:
            self.embeds.update(self._on_begin())
            self._on_begin = None

    @property
    def finished(self) -> bool:
        """Whether all evaluations have run."""
        return self.position >= self.schedule.evaluations

    @property
    def timestep(self) -> float | None:
        """The timestep of the last evaluation; None before the first."""
        return float(self.schedule.timesteps[self.position - 1]) if self.position else None

    @property
    def step(self) -> int:
        """How many steps have been taken; some solvers have two evaluations per step."""
        index = self.schedule.step_index
        return int(index[self.position]) if self.position < len(index) else self.schedule.steps

    @property
    def place(self) -> tuple[Memory, Buffer]:
        """The memory and the buffer ``[K, C, h, w]`` that its state is in now: the batch's while it is in one."""
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
        inputs = {
            f"{component}'s {name}": (buffer.dtype.name, list(buffer.shape[1:]))
            for component, buffers in self.inputs.items()
            for name, buffer in buffers.items()
        }
        latent = ("float32", list(self.state.shape[1:]))
        return {"what runs": list(self.components), "the weights": self.weights, "the latent": latent, **inputs}


def initial_state(latent: F32) -> F32:
    """Return the state that a solver begins with, ``[K, C, h, w]``: the latent ``[C, h, w]`` and zeros."""
    state = np.zeros((STATE_SLOTS, *latent.shape), np.float32)
    state[0] = latent
    return state


def checked_samples(samples: Iterable[Sample]) -> list[Sample]:
    """Return samples as a list.

    Raises:
        UsageError: they are not samples.

    """
    if isinstance(samples, Sample):
        raise UsageError("one sample in place of a list of samples")
    listed = list(samples)
    for sample in listed:
        if not isinstance(sample, Sample):
            raise UsageError(f"{type(sample).__name__} in place of a sample: prepare() returns a list of them")
    return listed


def step_numbers(schedule: Schedule, guidance: Guidance) -> dict[str, F32]:
    """Return the denoiser's inputs that follow from schedule and guidance, ``[N, ...]`` each, by name."""
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
