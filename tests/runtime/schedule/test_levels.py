"""Noise levels and spacings, number by number."""

from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from sdengine.runtime.schedule import make_schedule
from sdengine.runtime.schedule.levels import training_levels
from sdengine.runtime.schedule.quantile import beta_quantiles
from sdengine.runtime.schedule.solver_options import SolverOptions

from .oracle import SDXL, build, diffusers_warnings_ignored


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(("start", "end"), [(0.00085, 0.012), (0.0001, 0.02)])
@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("count", [1000, 37])
def test_levels_are_diffusers_bit_by_bit(
    beta_schedule: str, start: float, end: float, rescale: bool, count: int
) -> None:
    options: dict[str, Any] = {
        "num_train_timesteps": count,
        "beta_start": start,
        "beta_end": end,
        "beta_schedule": beta_schedule,
        "rescale_betas_zero_snr": rescale,
    }
    theirs = build("EulerDiscreteScheduler", options).alphas_cumprod.numpy()
    ours = training_levels(SolverOptions(**options)).alphas_cumprod
    assert ours.dtype == theirs.dtype
    if rescale:  # through square roots, which torch does not round correctly on every CPU
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)
    else:
        assert np.array_equal(ours, theirs)


def test_linspace_and_cumprod_round_as_torch_does() -> None:
    options = SolverOptions(beta_start=0.00085, beta_end=0.012, beta_schedule="linear")
    betas = torch.linspace(0.00085, 0.012, 1000)
    assert np.array_equal(training_levels(options).alphas_cumprod, torch.cumprod(1 - betas, 0).numpy())


@pytest.mark.parametrize("count", [1, 2, 3, 10, 50, 1000])
def test_beta_quantiles(count: int) -> None:
    wanted = scipy.stats.beta.ppf(1 - np.linspace(0, 1, count), 0.6, 0.6)
    np.testing.assert_allclose(beta_quantiles(count), wanted, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_whole_timesteps_are_exact(spacing: str, name: str) -> None:
    sigmas = ({},) if name == "DDIMScheduler" else ({}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True})
    for options in sigmas:
        overrides = {"timestep_spacing": spacing, **options}
        scheduler = build(name, SDXL, overrides)
        for steps in range(1, 101):
            with diffusers_warnings_ignored():
                scheduler.set_timesteps(steps)
            schedule = make_schedule(SDXL, solver=name, overrides=overrides, num_inference_steps=steps)
            assert schedule.timesteps.tolist() == scheduler.timesteps.tolist()
