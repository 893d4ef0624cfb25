"""unCLIP's solver against diffusers' scheduler, stepped as its prior pipeline steps it."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.runtime.schedule import make_schedule, solver_names

from .oracle import SHAPE, random_tensor, relative_error, run_matrices

PRIOR = {
    "_class_name": "UnCLIPScheduler",
    "clip_sample": True,
    "clip_sample_range": 10.0,
    "num_train_timesteps": 1000,
    "prediction_type": "sample",
    "variance_type": "fixed_small_log",
}
"""The scheduler config that Kandinsky 2.2's prior ships with."""


def theirs(options: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[float]]:
    """Latents after each step, and the timesteps."""
    given = PRIOR | options
    scheduler = diffusers.UnCLIPScheduler(**{k: v for k, v in given.items() if k != "_class_name"})
    scheduler.set_timesteps(steps)
    latents = [torch.from_numpy(random_tensor(0, "initial")).float() * scheduler.init_noise_sigma]
    for i, t in enumerate(scheduler.timesteps):
        fresh = torch.from_numpy(random_tensor(i, "fresh")).float()
        monkeypatch.setattr(
            "diffusers.schedulers.scheduling_unclip.randn_tensor", lambda *_, fresh=fresh, **__: fresh.clone()
        )
        following = scheduler.timesteps[i + 1] if i + 1 < len(scheduler.timesteps) else None
        output = torch.from_numpy(random_tensor(i, "output")).float()
        latents.append(scheduler.step(output, t, latents[-1], prev_timestep=following).prev_sample)
    return [latent.double().numpy() for latent in latents], scheduler.timesteps.tolist()


@pytest.mark.parametrize("steps", [2, 3, 25, 1000])
@pytest.mark.parametrize(
    "options",
    [{}, {"clip_sample_range": 0.5}, {"clip_sample": False}, {"prediction_type": "epsilon"}],
    ids=["published", "clipped", "unclipped", "epsilon"],
)
def test_every_step_follows_diffusers(options: dict[str, Any], steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, timesteps = theirs(options, steps, monkeypatch)
    schedule = make_schedule(PRIOR | options, num_inference_steps=steps)
    ours = run_matrices(schedule)
    assert ours.timesteps.tolist() == timesteps
    assert ours.draws == [t > 0 for t in timesteps]
    assert ours.latents.shape == (steps + 1, *SHAPE)
    error = relative_error(ours.latents, np.stack(expected))
    assert error < 1e-4, f"{error:.2g}"


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(UsageError, match="at least 2 steps"):
        make_schedule(PRIOR, num_inference_steps=1)
    with pytest.raises(UsageError, match=r"learned_range.* needs a variance"):
        make_schedule(PRIOR | {"variance_type": "learned_range"}, num_inference_steps=4)


def test_no_picture_is_drawn_with_it() -> None:
    assert PRIOR["_class_name"] not in solver_names()
