"""Names, option tables and the public face of the package."""

import inspect
import subprocess
import sys

import diffusers
import pytest
import sdengine.runtime.schedule as package
from sdengine.runtime.schedule import make_schedule, solver_names
from sdengine.runtime.schedule.solver_registry import SOLVERS

from .oracle import SDXL


def test_public_names() -> None:
    assert package.__all__ == ["STATE_SLOTS", "Schedule", "make_schedule", "solver_names"]


@pytest.mark.parametrize("name", SOLVERS)
def test_options_are_those_of_diffusers(name: str) -> None:
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    theirs = {key: parameter.default for key, parameter in parameters.items() if key != "self"}
    assert dict(SOLVERS[name].options.defaults) == theirs


@pytest.mark.parametrize("name", SOLVERS)
def test_order_and_custom_grids_are_those_of_diffusers(name: str) -> None:
    scheduler = getattr(diffusers, name)
    assert SOLVERS[name].order == scheduler.order
    accepted = set(inspect.signature(scheduler.set_timesteps).parameters)
    assert ("timesteps" in SOLVERS[name].takes) == ("timesteps" in accepted)
    assert ("eta" in SOLVERS[name].takes) == ("eta" in inspect.signature(scheduler.step).parameters)


@pytest.mark.parametrize("name", [name for name in solver_names() if not name.startswith("EDM") and "edm" not in name])
def test_every_name_works(name: str) -> None:
    schedule = make_schedule(SDXL, solver=name, num_inference_steps=6)
    assert schedule.solver in SOLVERS and schedule.steps == 6


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        ("Euler", "EulerDiscreteScheduler"),
        ("Euler a", "EulerAncestralDiscreteScheduler"),
        ("DPM++ 2M Karras", "DPMSolverMultistepScheduler"),
        ("dpm++-2m-sde", "DPMSolverMultistepScheduler"),
        ("DDIM", "DDIMScheduler"),
        ("HeunDiscrete", "HeunDiscreteScheduler"),
    ],
)
def test_names_as_people_write_them(name: str, solver: str) -> None:
    assert make_schedule(SDXL, solver=name, num_inference_steps=6).solver == solver


def test_a_short_name_implies_options_that_overrides_may_change() -> None:
    karras = make_schedule(SDXL, solver="dpmpp_2m_karras", num_inference_steps=6)
    wanted = make_schedule(
        SDXL, solver="DPMSolverMultistepScheduler", overrides={"use_karras_sigmas": True}, num_inference_steps=6
    )
    assert karras.timesteps.tolist() == wanted.timesteps.tolist()
    plain = make_schedule(SDXL, solver="dpmpp_2m", num_inference_steps=6)
    undone = make_schedule(
        SDXL, solver="dpmpp_2m_karras", overrides={"use_karras_sigmas": False}, num_inference_steps=6
    )
    assert undone.timesteps.tolist() == plain.timesteps.tolist()


def test_schedules_are_read_only_and_independent() -> None:
    first = make_schedule(SDXL, num_inference_steps=6)
    with pytest.raises(ValueError, match="read-only"):
        first.update[0, 0, 0] = 0
    assert (first.update == make_schedule(SDXL, num_inference_steps=6).update).all()


def test_needs_neither_torch_nor_scipy() -> None:
    code = (
        "import sys; from sdengine.runtime.schedule import make_schedule;"
        "make_schedule({'_class_name': 'EulerDiscreteScheduler'}, overrides={'use_beta_sigmas': True},"
        " num_inference_steps=9);"
        "print(sorted({'torch', 'scipy', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
