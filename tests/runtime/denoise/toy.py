"""A denoiser of a few lines of numpy, and samples for it: what a batch does can be seen without any network."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sdengine.engines.component_specs import STATE_SLOTS, UPDATE_TERMS
from sdengine.engines.engine import check_buffers
from sdengine.engines.memory import HOST, Buffer
from sdengine.engines.spec import AxisRange, ComponentSpec, TensorSpec
from sdengine.runtime.denoise.guidance import guidance_for
from sdengine.runtime.denoise.sample import Sample, initial_state, step_numbers
from sdengine.runtime.latents.seeds import streams_for
from sdengine.runtime.schedule import make_schedule

__all__ = ["LATENT", "ToyDenoiser", "sample"]

LATENT = (2, 3, 4)
_STATE = ("S", STATE_SLOTS, LATENT[0], "h", "w")
_EACH: dict[str, tuple[Any, ...]] = {
    "timestep": ("R",), "input_scale": ("S",), "mix": ("S", "R"), "rescale": ("S", "R"), "predict": ("S", 2),
    "clip": ("S",), "update": ("S", STATE_SLOTS, UPDATE_TERMS),
}  # fmt: skip
_AXES = {name: AxisRange(1, 1, 64) for name in ("S", "R", "h", "w")}


class ToyDenoiser:
    """Its network says of a row: the tanh of latent, time and the row's text. It counts its runs, by (S, R)."""

    name, device, precision, memory, notes = "toy", "none", "fp32", HOST, list[str]()
    spec = ComponentSpec(
        "denoiser",
        (
            TensorSpec("state", "float32", _STATE, "state"),
            TensorSpec("row_sample", "int64", ("R",)),
            TensorSpec("noise", "float32", ("S", LATENT[0], "h", "w"), "evaluation"),
            *(TensorSpec(name, "float32", shape, "evaluation") for name, shape in _EACH.items()),
            TensorSpec("text", "float32", ("R", 1)),
        ),
        (TensorSpec("next_state", "float32", _STATE),),
        _AXES,
    )

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []
        self.prepared = 0

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        axes, given = check_buffers(self.spec, inputs, outputs), dict[str, Any](inputs)
        self.prepared += 1

        def once() -> None:
            self.runs.append((axes["S"], axes["R"]))
            said = []
            for r, s in enumerate(given["row_sample"]):
                x = given["input_scale"][s] * given["state"][s, 0]
                said.append(np.tanh(x + given["timestep"][r] / 100 + given["text"][r]))
            for s, state in enumerate(given["state"]):
                mix = given["mix"][s]
                output = sum((mix[r] * said[r] for r in np.flatnonzero(mix)), np.zeros(LATENT))
                bound = given["clip"][s]
                x0 = np.clip(given["predict"][s, 0] * state[0] + given["predict"][s, 1] * output, -bound, bound)
                terms = np.stack([*state, output, x0, given["noise"][s]])
                outputs["next_state"][s] = np.tensordot(given["update"][s], terms, 1)

        return once

    def close(self) -> None: ...


def sample(
    steps: int = 4, *, seed: int = 0, solver: str = "euler", scale: float = 7.5, text: float = 0.5, **changes: Any
) -> Sample:
    """Return a sample of the toy."""
    config = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "num_train_timesteps": 100}
    schedule = make_schedule(config, solver=solver, num_inference_steps=steps)
    guidance = guidance_for(scale, evaluations=schedule.evaluations, rescale=0.0, guided=scale > 1)
    noise = streams_for(seed, None, 1, "cpu").stream(0)
    words = np.array([[0.1], [text]], np.float32)[-guidance.rows :]
    settings: dict[str, Any] = {
        "schedule": schedule,
        "rows": guidance.rows,
        "components": ("denoiser",),
        "inputs": {"denoiser": {"text": words}},
        "numbers": {"denoiser": step_numbers(schedule, guidance)},
        "noise": noise,
        "state": initial_state(noise.normal(LATENT)),
        "seed": seed,
    }
    return Sample(**(settings | changes))
