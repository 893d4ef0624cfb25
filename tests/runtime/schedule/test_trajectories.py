"""Every solver against its diffusers scheduler: whole trajectories on random network outputs."""

import itertools
from typing import Any

import numpy as np
import pytest
from sdengine.runtime.schedule import make_schedule

from .oracle import SDXL, build, compare, relative_error, run_diffusers, run_matrices

SPACINGS = ("linspace", "leading", "trailing")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SIGMAS: tuple[dict[str, bool], ...] = (
    {},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
)

# solver, prediction types that diffusers implements, whether it takes timestep_spacing, whether it takes sigma options
SOLVERS = {
    "DDIMScheduler": (PREDICTIONS, True, False),
    "DDPMScheduler": (PREDICTIONS, True, False),
    "DEISMultistepScheduler": (PREDICTIONS, True, True),
    "DPMSolverMultistepScheduler": (PREDICTIONS, True, True),
    "DPMSolverSinglestepScheduler": (PREDICTIONS, False, True),
    "EDMDPMSolverMultistepScheduler": (PREDICTIONS[:2], False, False),
    "EDMEulerScheduler": (PREDICTIONS[:2], False, False),
    "EulerAncestralDiscreteScheduler": (PREDICTIONS[:2], True, False),
    "EulerDiscreteScheduler": (PREDICTIONS, True, True),
    "HeunDiscreteScheduler": (PREDICTIONS, True, True),
    "KDPM2AncestralDiscreteScheduler": (PREDICTIONS[:2], True, True),
    "KDPM2DiscreteScheduler": (PREDICTIONS[:2], True, True),
    "LCMScheduler": (PREDICTIONS, False, False),
    "LMSDiscreteScheduler": (PREDICTIONS, True, True),
    "PNDMScheduler": (PREDICTIONS[:2], True, False),
    "TCDScheduler": (PREDICTIONS, False, False),
    "UniPCMultistepScheduler": (PREDICTIONS, True, True),
}


def steps_for(name: str, prediction: str) -> tuple[int, ...]:
    if name in ("LCMScheduler", "TCDScheduler"):
        return (1, 2, 4, 8, 50)
    few = (1, 3, 14) if name == "KDPM2AncestralDiscreteScheduler" else (1, 2, 3, 14)  # 2 steps: see below
    return (*few, 40, 100) if prediction == "v_prediction" and name not in SLOW else few


# LMS is integrated numerically in diffusers, and DPM2 interpolates its timesteps one by one
SLOW = ("LMSDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")


@pytest.mark.parametrize("name", SOLVERS)
def test_every_combination_follows_diffusers(name: str) -> None:
    predictions, spaced, respaced = SOLVERS[name]
    for prediction, spacing, sigmas in itertools.product(
        predictions, SPACINGS if spaced else ("",), SIGMAS if respaced else ({},)
    ):
        overrides: dict[str, Any] = {"prediction_type": prediction, **sigmas}
        if spaced:
            overrides["timestep_spacing"] = spacing
        compare(name, overrides, *steps_for(name, prediction))


@pytest.mark.parametrize("name", SLOW)
def test_many_steps(name: str) -> None:
    compare(name, {"prediction_type": "v_prediction"}, 40)
    compare(name, {"use_karras_sigmas": True}, 100)


def test_two_ancestral_dpm2_steps_within_diffusers_rounding() -> None:
    """Two steps go from one end of the noise to the other, and diffusers' float32 loses the sigma between them."""
    for sigmas in SIGMAS:
        scheduler = build("KDPM2AncestralDiscreteScheduler", SDXL, {"timestep_spacing": "linspace", **sigmas})
        theirs = run_diffusers(scheduler, steps=2)
        overrides = {"timestep_spacing": "linspace", **sigmas}
        schedule = make_schedule(SDXL, solver="dpm2_a", overrides=overrides, num_inference_steps=2)
        ours = run_matrices(schedule)
        np.testing.assert_allclose(ours.timesteps, theirs.timesteps, rtol=0, atol=0.01)
        assert relative_error(ours.latents, theirs.latents) < 2e-4


def test_the_checkpoints_own_solver_is_the_default() -> None:
    assert make_schedule(SDXL, num_inference_steps=3).solver == "EulerDiscreteScheduler"


def test_a_wrong_factor_is_noticed() -> None:
    theirs = run_diffusers(build("EulerDiscreteScheduler", SDXL), steps=5)
    schedule = make_schedule(SDXL, num_inference_steps=5)
    update = schedule.update.copy()
    update[3, 0, 0] *= 1.001
    schedule.update.setflags(write=True)
    schedule.update[...] = update
    assert relative_error(run_matrices(schedule).latents, theirs.latents) > 1e-4


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler", "HeunDiscreteScheduler", "LCMScheduler"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("most", [1.0, 0.3])
def test_clipped_pictures_follow_diffusers(name: str, prediction: str, most: float) -> None:
    overrides = {"prediction_type": prediction, "clip_sample": True, "clip_sample_range": most}
    compare(name, overrides, 1, 4, 12)
    compare(name, overrides, 12, strength=0.6, inpaint=True)
    if name == "DDIMScheduler":
        compare(name, overrides, 12, eta=0.5)


def test_clipping_matters() -> None:
    plain, clipped = (
        run_matrices(make_schedule(SDXL, solver="ddim", overrides={"clip_sample": clip}, num_inference_steps=4))
        for clip in (False, True)
    )
    assert relative_error(plain.latents, clipped.latents) > 0.1
