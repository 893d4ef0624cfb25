"""Strength, denoising_start and denoising_end, custom timesteps and sigmas, and inpainting by blending."""

from typing import Any

import numpy as np
import pytest
from sdengine.runtime.schedule import make_schedule

from .oracle import SDXL, compare

CUTS: tuple[dict[str, Any], ...] = (
    {"strength": 0.3},
    {"strength": 0.75},
    {"strength": 1.0},
    {"denoising_start": 0.8},
    {"denoising_end": 0.8},
    {"denoising_start": 0.3, "denoising_end": 0.7},
    {"strength": 0.6, "denoising_end": 0.7},
)

ALL: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {},
    "DDPMScheduler": {},
    "DEISMultistepScheduler": {"solver_order": 3},
    "DPMSolverMultistepScheduler": {"solver_order": 3},
    "DPMSolverSinglestepScheduler": {"solver_order": 3},
    "EulerAncestralDiscreteScheduler": {},
    "EulerDiscreteScheduler": {"use_karras_sigmas": True},
    "HeunDiscreteScheduler": {},
    "KDPM2AncestralDiscreteScheduler": {},
    "KDPM2DiscreteScheduler": {"use_karras_sigmas": True},
    "LCMScheduler": {},
    "LMSDiscreteScheduler": {},
    "PNDMScheduler": {},
    "TCDScheduler": {},
    "UniPCMultistepScheduler": {"solver_order": 3},
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_cut(name: str, cut: dict[str, Any]) -> None:
    compare(name, ALL[name], 10, 31, **cut)


@pytest.mark.parametrize("name", ALL)
def test_a_picture_blended_in_after_every_evaluation(name: str) -> None:
    compare(name, ALL[name], 10, inpaint=True)
    compare(name, ALL[name], 10, inpaint=True, strength=0.7)


def test_runge_kutta_start_cut_short() -> None:
    for cut in CUTS:
        compare("PNDMScheduler", {"skip_prk_steps": False}, 20, **cut)


@pytest.mark.parametrize(
    "name",
    [
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "LCMScheduler",
        "TCDScheduler",
    ],
)
def test_custom_timesteps(name: str) -> None:
    timesteps = [999, 845, 730, 587, 443, 310, 193, 116, 53, 13]
    compare(name, {}, timesteps=timesteps)
    compare(name, {}, timesteps=timesteps, denoising_end=0.6)
    if name != "HeunDiscreteScheduler":  # there diffusers counts the steps twice and cuts in odd places
        compare(name, {}, timesteps=timesteps, strength=0.55)


def test_custom_sigmas() -> None:
    sigmas = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.38, 0.234, 0.113, 0.0]
    compare("EulerDiscreteScheduler", {}, sigmas=sigmas)
    compare("EulerDiscreteScheduler", {}, sigmas=sigmas, strength=0.5)
    compare("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}, sigmas=[9.0, 2.0, 0.1])


def make(**request: Any) -> Any:
    return make_schedule(SDXL, **{"num_inference_steps": 10, **request})


def test_how_the_latent_starts() -> None:
    text, picture = make(), make(strength=0.5)
    assert text.start == (0.0, pytest.approx(8.450, abs=1e-3))
    assert picture.start[0] == 1.0 and 0 < picture.start[1] < text.start[1]
    assert make(denoising_start=0.5).start == (1.0, 0.0)
    assert make(solver="ddim").start == (0.0, 1.0)
    signal, noise = make(solver="ddim", strength=0.5).start
    assert signal**2 + noise**2 == pytest.approx(1)


def test_the_known_picture_is_clean_at_the_end() -> None:
    for name in ALL:
        assert make(solver=name).blend[-1].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("solver", "evaluations", "steps"),
    [("euler", 10, 10), ("heun", 19, 10), ("dpm2", 19, 10), ("dpmpp_sde", 19, 10), ("plms", 11, 10), ("unipc", 10, 10)],
)
def test_evaluations_and_steps(solver: str, evaluations: int, steps: int) -> None:
    schedule = make(solver=solver)
    assert schedule.evaluations == evaluations == len(schedule.timesteps)
    assert schedule.steps == steps
    assert schedule.step_index[0] == 0 and set(np.diff(schedule.step_index)) <= {0, 1}


def test_steps_of_the_runge_kutta_start() -> None:
    schedule = make(solver="pndm", overrides={"skip_prk_steps": False})
    assert schedule.step_index.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + list(range(3, 10))
