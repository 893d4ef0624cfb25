"""Settings nobody thought of: random solvers, options, steps and cuts, against diffusers."""

import contextlib
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, given, settings
from sdengine.engines.errors import UsageError
from sdengine.runtime.schedule import make_schedule
from sdengine.runtime.schedule.solver_registry import SOLVERS

from .oracle import SDXL, SIGMA_SPACINGS, assert_same, build, run_diffusers, run_matrices

NAMES = sorted(set(SOLVERS) - {"DPMSolverSDEScheduler"})

VALUES: dict[str, tuple[Any, ...]] = {
    "beta_schedule": ("linear", "scaled_linear"),
    "beta_end": (0.012, 0.02),
    "timestep_spacing": ("linspace", "leading", "trailing"),
    "steps_offset": (0, 1, 3),
    "set_alpha_to_one": (True, False),
    "solver_order": (1, 2, 3),
    "lower_order_final": (True, False),
    "euler_at_final": (True, False),
    "final_sigmas_type": ("zero", "sigma_min"),
    "predict_x0": (True, False),
    "skip_prk_steps": (True, False),
    "variance_type": ("fixed_small", "fixed_large"),
    "original_inference_steps": (50, 80),
    "interpolation_type": ("linear", "log_linear"),
    "sigma_schedule": ("karras", "exponential"),
}

CUTS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"strength": 0.4},
    {"strength": 0.85},
    {"denoising_start": 0.5},
    {"denoising_end": 0.6},
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[str, Any], int, dict[str, Any]]:
    name = draw(st.sampled_from(NAMES))
    table = SOLVERS[name].options
    predictions = table.choices.get("prediction_type", ("epsilon", "v_prediction"))
    overrides: dict[str, Any] = {"prediction_type": draw(st.sampled_from(predictions))}
    for option, values in VALUES.items():
        if option in table.defaults and draw(st.booleans()):
            overrides[option] = draw(st.sampled_from(values))
    for option in ("solver_type", "algorithm_type"):
        if option in table.choices and draw(st.booleans()):
            overrides[option] = draw(st.sampled_from(table.choices[option]))
    spacing = draw(st.sampled_from((None, *SIGMA_SPACINGS)))
    if spacing is not None and spacing in table.defaults:
        overrides[spacing] = True
    if name.startswith("EDM"):
        overrides |= {"sigma_min": 0.002, "sigma_max": 80.0}
    return name, overrides, draw(st.integers(1, 40)), draw(st.sampled_from(CUTS))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(cases())
def test_random_settings(case: tuple[str, dict[str, Any], int, dict[str, Any]]) -> None:
    name, overrides, steps, cut = case
    ours = theirs = None
    with contextlib.suppress(UsageError):
        ours = make_schedule(SDXL, solver=name, overrides=overrides, num_inference_steps=steps, **cut)
    with contextlib.suppress(ValueError, IndexError, RuntimeError, UnboundLocalError):
        theirs = run_diffusers(build(name, SDXL, overrides), steps=steps, **cut)
    if theirs is None or not np.isfinite(theirs.latents).all() or len(theirs.timesteps) == 0:
        return  # diffusers crashes, or draws NaN: nothing to follow
    assert ours is not None
    assert_same(run_matrices(ours), theirs, 1e-3 if overrides.get("solver_order") == 3 else 1e-4)
