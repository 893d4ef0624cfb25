"""What cannot be met as given is refused in the user's terms."""

from typing import Any

import numpy as np
import pytest
from sdengine.engines.errors import UsageError
from sdengine.runtime.schedule import make_schedule

from .oracle import SDXL


def refused(match: str, config: dict[str, Any] | None = None, **request: Any) -> None:
    with pytest.raises(UsageError, match=match):
        make_schedule(SDXL if config is None else config, **{"num_inference_steps": 10, **request})


def test_unknown_solver() -> None:
    refused(
        r"unknown solver 'unipcc'; did you mean 'unipc'\? \(known: .*dpmpp_2m.*EulerDiscreteScheduler", solver="unipcc"
    )
    refused(r"'EulerDiscretScheduler'; did you mean 'EulerDiscreteScheduler'", solver="EulerDiscretScheduler")
    refused("unknown solver 'FlowMatchEulerDiscreteScheduler'", {"_class_name": "FlowMatchEulerDiscreteScheduler"})
    refused("no _class_name", {})


def test_unknown_option() -> None:
    refused(
        r"EulerDiscreteScheduler has no option 'use_karas_sigmas'; did you mean 'use_karras_sigmas'\?",
        overrides={"use_karas_sigmas": True},
    )
    refused("DDIMScheduler has no option 'solver_order'", solver="ddim", overrides={"solver_order": 2})


@pytest.mark.parametrize(
    ("solver", "overrides", "match"),
    [
        ("euler", {"prediction_type": "eps"}, "prediction_type='eps' is not one of 'epsilon'"),
        ("euler", {"timestep_spacing": "leadin"}, "did you mean 'leading'"),
        ("euler", {"beta_schedule": "exp"}, "beta_schedule='exp' is not one of"),
        ("euler", {"use_karras_sigmas": "yes"}, "use_karras_sigmas"),
        ("euler", {"num_train_timesteps": 0}, "num_train_timesteps"),
        ("euler", {"beta_start": -1.0}, "beta_start: expected `float` > 0"),
        ("euler", {"trained_betas": [0.5] * 99 + [1.5], "num_train_timesteps": 100}, "every beta must lie between"),
        ("euler", {"trained_betas": [0.1, 0.2]}, "2 entries"),
        ("euler", {"use_karras_sigmas": True, "use_beta_sigmas": True}, "choose one of"),
        ("euler", {"use_karras_sigmas": True, "sigma_min": 0.0}, "sigma_min"),
        ("dpmpp_2m", {"solver_order": 4}, "solver_order=4 is not one of 1, 2, 3"),
        ("dpmpp_2m", {"algorithm_type": "dpmsolver"}, "cannot step to zero noise; pass final_sigmas_type='sigma_min'"),
        ("dpmpp_3m_sde", {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"}, "has no order 3"),
        ("dpmpp_2m", {"thresholding": True}, "thresholding=True clips"),
        ("dpmpp_2m", {"use_flow_sigmas": True}, "flow-matching"),
        ("dpmpp_2m", {"variance_type": "learned_range"}, "variance from the network"),
        ("unipc", {"solver_type": "midpoint"}, "solver_type='midpoint' is not one of 'bh1', 'bh2'"),
        ("unipc", {"lower_order_final": False}, "divide by zero at evaluation 9 of 10"),
        ("unipc", {"lower_order_final": False, "solver_order": 3}, "divide by zero at evaluation"),
        ("ddim", {"thresholding": True}, "thresholding=True clips the predicted image.*pass thresholding=False"),
        ("ddim", {"clip_sample_range": 0.0}, "clip_sample_range: expected `float` > 0"),
        ("ddpm", {"variance_type": "learned"}, "variance from the network"),
        ("ddpm", {"variance_type": "fixed_large_log"}, "not one of 'fixed_small'"),
        ("pndm", {"prediction_type": "sample"}, "not one of 'epsilon', 'v_prediction'"),
        ("lcm", {"original_inference_steps": 5}, "10 steps are more than original_inference_steps=5"),
        ("dpmpp_sde", {"noise_sampler_seed": 0}, "give each image its seed"),
        ("edm_euler", {"sigma_min": 90.0}, "0 < sigma_min < sigma_max"),
        ("ddim", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "evaluation 0 of 10.*'epsilon'"),
        ("ddim", {"steps_offset": 200}, "beyond the last training timestep 999"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(solver: str, overrides: dict[str, Any], match: str) -> None:
    refused(match, solver=solver, overrides=overrides)


def test_a_config_that_clips_does_so_where_the_solver_can() -> None:
    """DDIM clips unless it is told not to; Euler has no such option and does not look at it."""
    clipping = {key: value for key, value in SDXL.items() if key != "clip_sample"}
    assert make_schedule(clipping, solver="ddim", num_inference_steps=3).clip == 1.0
    assert make_schedule(clipping, solver="euler", num_inference_steps=3).clip == np.inf
    ignored = make_schedule(SDXL, solver="tcd", overrides={"clip_sample": True}, num_inference_steps=3)
    assert ignored.clip == np.inf and "TCDScheduler does not use clip_sample" in ignored.warnings[0]


@pytest.mark.parametrize(
    ("request_", "match"),
    [
        ({"num_inference_steps": 0}, "from 1 to 1000, not 0"),
        ({"num_inference_steps": 1001}, "from 1 to 1000, not 1001"),
        ({"num_inference_steps": 2.5}, "whole number"),
        ({"num_inference_steps": True}, "whole number"),
        ({"num_inference_steps": None}, "exactly one of"),
        ({"timesteps": [999, 500]}, "exactly one of"),
        ({"num_inference_steps": None, "timesteps": [500, 999]}, "strictly descending"),
        ({"num_inference_steps": None, "timesteps": []}, "descending"),
        ({"num_inference_steps": None, "timesteps": [2000, 1]}, "beyond the last training timestep 999"),
        ({"num_inference_steps": None, "sigmas": [1.0]}, "at least two"),
        ({"num_inference_steps": None, "timesteps": [9, 5], "solver": "ddim"}, "DDIMScheduler does not take timesteps"),
        ({"num_inference_steps": None, "sigmas": [9.0, 0.0], "solver": "unipc"}, "does not take sigmas.*Euler"),
        (
            {"num_inference_steps": None, "timesteps": [9, 5], "overrides": {"use_karras_sigmas": True}},
            "timesteps cannot be combined with use_karras_sigmas",
        ),
        ({"eta": 0.5}, "EulerDiscreteScheduler does not take eta .*DDIMScheduler, TCDScheduler"),
        ({"eta": 1.5, "solver": "ddim"}, "eta must lie between 0 and 1"),
        ({"strength": 1.5}, "strength must lie"),
        ({"strength": 0.01}, "strength=0.01 leaves no step of 10"),
        ({"denoising_start": 1.0}, "denoising_start must lie"),
        ({"denoising_end": 0.0}, "denoising_end must be above 0"),
        ({"denoising_start": 0.8, "denoising_end": 0.3}, r"denoising_start \(0.8\) must be below"),
        ({"denoising_end": 0.001}, "leaves no step"),
        ({"num_inference_steps": 3, "solver": "pndm", "overrides": {"skip_prk_steps": False}}, "at least 4 steps"),
    ],
)
def test_requests_that_cannot_be(request_: dict[str, Any], match: str) -> None:
    refused(match, **request_)


def test_options_without_effect_are_reported() -> None:
    schedule = make_schedule(SDXL, solver="lcm", overrides={"timestep_spacing": "trailing"}, num_inference_steps=4)
    assert schedule.warnings == ("LCMScheduler does not use timestep_spacing: it has no effect",)
    schedule = make_schedule(SDXL, solver="lcm", num_inference_steps=None, timesteps=[900, 500, 10])
    assert len(schedule.warnings) == 2 and "900, not 999" in schedule.warnings[0] and "500, 10" in schedule.warnings[1]
    assert make_schedule(SDXL, num_inference_steps=4).warnings == ()
