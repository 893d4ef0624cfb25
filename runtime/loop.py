"""The loop over the steps: one engine call for each, and numbers copied into its inputs; no arithmetic here."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engines.engine import Array, Engine
from .guidance import Guidance
from .schedule import STATE_SLOTS, Schedule
from .seeds import NoiseStreams

__all__ = ["Blend", "Control", "Step", "denoise"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Control:
    """A ControlNet that takes part.

    Attributes:
        engine: its open engine.
        inputs: hint and conditions, by name.
        scale: float32 [N, R, maps], for each evaluation; all zero where the network is not run.

    """

    engine: Engine
    inputs: Mapping[str, Array]
    scale: F32


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Inpainting with an ordinary UNet: what the mask leaves out is put back after each evaluation.

    Attributes:
        mask: float32 [S, 1, h, w]; 1 is drawn anew.
        known: float32 [S, C, h, w], latents of the picture.
        noise: float32 [S, C, h, w], the initial noise.

    """

    mask: F32
    known: F32
    noise: F32

    def into(self, latent: F32, factors: NDArray[np.float64]) -> None:
        """Overwrite the part of ``latent`` that is not drawn, at the noise level of ``factors`` (signal, noise)."""
        kept = np.float32(factors[0]) * self.known + np.float32(factors[1]) * self.noise
        latent[:] = (1 - self.mask) * kept + self.mask * latent


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is known after an evaluation.

    Attributes:
        evaluation: index, from 0.
        step: the user's step that it belongs to, from 0.
        timestep: what the network was told.
        last_of_step: whether the step is done.
        latent: float32 [S, C, h, w]; a view of the state, which may be written to.
        milliseconds: of the evaluation.

    """

    evaluation: int
    step: int
    timestep: float
    last_of_step: bool
    latent: F32
    milliseconds: float


def denoise(
    denoiser: Engine,
    schedule: Schedule,
    guidance: Guidance,
    latent: F32,
    conditions: Mapping[str, Array],
    noise: NoiseStreams,
    *,
    controls: Sequence[Control] = (),
    blend: Blend | None = None,
) -> Iterator[Step]:
    """Draw S samples, yielding after each evaluation.

    Args:
        denoiser: the open denoiser.
        schedule: the solver's numbers.
        guidance: rows and how they mix.
        latent: float32 [S, C, h, w], as the schedule starts.
        conditions: the conditioner's outputs, and ``extra`` for inpainting UNets.
        noise: streams of the samples.
        controls: ControlNets.
        blend: see :class:`Blend`.

    """
    samples, rows = len(latent), guidance.rows
    states = [np.zeros((STATE_SLOTS, *latent.shape), np.float32) for _ in range(2)]
    states[0][0] = latent
    fresh = np.zeros(latent.shape, np.float32)
    timestep = np.empty(rows, np.float32)
    input_scale = np.empty(samples, np.float32)
    update = np.empty((samples, STATE_SLOTS, STATE_SLOTS + 2), np.float32)
    shared: dict[str, Array] = {"row_sample": guidance.row_sample, "timestep": timestep, "input_scale": input_scale}
    residuals = _Residuals(denoiser, controls, states, shared)
    inputs = shared | {"noise": fresh, "mix": guidance.mix, "rescale": guidance.rescale, "update": update}
    inputs = {**inputs, **conditions, **residuals.final}
    once: list[Callable[[], None]] = [
        denoiser.prepare({**inputs, "state": states[i]}, {"next_state": states[1 - i]}) for i in range(2)
    ]
    input_scales, updates = schedule.input_scale.astype(np.float32), schedule.update.astype(np.float32)
    for i in range(schedule.evaluations):
        started = time.perf_counter()
        timestep.fill(schedule.timesteps[i])
        input_scale.fill(input_scales[i])
        update[:] = updates[i]
        if schedule.noise_draws[i]:
            fresh[:] = noise.draw(latent.shape[1:])
        residuals.compute(i)
        once[i % 2]()
        current = states[1 - i % 2][0]
        if blend is not None:
            blend.into(current, schedule.blend[i])
        last = i + 1 == schedule.evaluations or schedule.step_index[i + 1] != schedule.step_index[i]
        yield Step(
            evaluation=i,
            step=int(schedule.step_index[i]),
            timestep=float(schedule.timesteps[i]),
            last_of_step=bool(last),
            latent=current,
            milliseconds=(time.perf_counter() - started) * 1e3,
        )


class _Residuals:
    """Buffers of what the ControlNets add; each adds to the one before it.

    Attributes:
        final: the denoiser's inputs, by name.

    """

    def __init__(
        self, denoiser: Engine, controls: Sequence[Control], states: Sequence[F32], shared: Mapping[str, Array]
    ) -> None:
        rows = len(shared["row_sample"])
        height, width = states[0].shape[-2:]
        axes = {"R": rows, "h": height, "w": width}
        wanted = [tensor for tensor in denoiser.spec.inputs if tensor.name.startswith("residual_")]
        chain: list[dict[str, Array]] = [
            {tensor.name: np.zeros(tensor.resolve(axes), np.float32) for tensor in wanted} for _ in range(3)
        ]
        zero, *others = chain if controls else chain[:1] * 3
        self._controls = controls
        self._runs: list[list[Callable[[], None]]] = []
        self._scales: list[F32] = []
        before = zero
        for i, control in enumerate(controls):
            after = others[i % 2]
            outputs = {name.replace("residual", "sum"): array for name, array in after.items()}
            scale = np.empty(control.scale.shape[1:], np.float32)
            inputs = {**shared, **control.inputs, **before, "scale": scale}
            self._runs.append([control.engine.prepare({**inputs, "state": state}, outputs) for state in states])
            self._scales.append(scale)
            before = after
        self.final = before

    def compute(self, evaluation: int) -> None:
        """Fill the residuals for an evaluation."""
        if not self._controls:
            return
        if not any(control.scale[evaluation].any() for control in self._controls):
            for array in self.final.values():
                array[...] = 0
            return
        for control, runs, scale in zip(self._controls, self._runs, self._scales, strict=True):
            scale[:] = control.scale[evaluation]
            runs[evaluation % 2]()
