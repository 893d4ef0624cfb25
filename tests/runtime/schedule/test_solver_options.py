"""The options of single solvers, against diffusers."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sdengine.runtime.schedule import make_schedule

from .oracle import SDXL, build, compare, relative_error, run_diffusers, run_matrices

DPM, SINGLE, EDM_DPM = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EDMDPMSolverMultistepScheduler"
UNIPC, EULER, DDIM = "UniPCMultistepScheduler", "EulerDiscreteScheduler", "DDIMScheduler"


def combinations(**values: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    for chosen in itertools.product(*values.values()):
        yield dict(zip(values, chosen, strict=True))


@pytest.mark.parametrize(
    ("algorithm", "final"),
    [(name, "sigma_min") for name in ("dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++")]
    + [(name, "zero") for name in ("dpmsolver++", "sde-dpmsolver++")],
)
def test_dpm_solver_multistep(algorithm: str, final: str) -> None:
    orders = (1, 2) if algorithm == "sde-dpmsolver" else (1, 2, 3)
    for chosen in combinations(solver_order=orders, solver_type=("midpoint", "heun"), timestep_spacing=("trailing",)):
        overrides = {**chosen, "algorithm_type": algorithm, "final_sigmas_type": final}
        compare(DPM, overrides, 1, 6, 20)
        compare(DPM, {**overrides, "lower_order_final": False, "prediction_type": "v_prediction"}, 6)
        compare(DPM, {**overrides, "euler_at_final": True, "prediction_type": "sample"}, 6, 20)


@pytest.mark.parametrize("beta_schedule", ["scaled_linear", "squaredcos_cap_v2"])
def test_dpm_solver_spacings(beta_schedule: str) -> None:
    cosine = beta_schedule == "squaredcos_cap_v2"
    for extra in (
        {"use_lu_lambdas": True},
        {"use_karras_sigmas": True},
        {"lambda_min_clipped": -5.1 if cosine else -2.0},
    ):
        overrides = {"beta_schedule": beta_schedule, "prediction_type": "v_prediction", **extra}
        # the cosine schedule ends at sigma = 20,000, where float32 leaves diffusers three digits of the picture
        compare(DPM, overrides, 12, tolerance=3e-3 if cosine else 1e-4)


@pytest.mark.parametrize("algorithm", ["dpmsolver", "dpmsolver++", "sde-dpmsolver++"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver_singlestep(algorithm: str, order: int) -> None:
    finals = ("sigma_min", "zero") if algorithm.endswith("++") else ("sigma_min",)
    kinds = combinations(final_sigmas_type=finals, solver_type=("midpoint", "heun"), lower_order_final=(True, False))
    for chosen in kinds:
        compare(SINGLE, {**chosen, "algorithm_type": algorithm, "solver_order": order}, 1, 2, 3, 4, 5, 6, 12)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("predict_x0", [True, False])
def test_unipc(order: int, predict_x0: bool) -> None:
    base = {"solver_order": order, "predict_x0": predict_x0, "final_sigmas_type": "sigma_min"}
    for solver_type in ("bh1", "bh2"):
        for extra in ({}, {"lower_order_final": False}, {"disable_corrector": [0, 3]}):
            compare(UNIPC, {**base, "solver_type": solver_type, **extra}, 1, 2, 3, 4, 15)
    compare(UNIPC, {**base, "sigma_min": 0.1, "sigma_max": 10.0, "use_karras_sigmas": True}, 9)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(order: int) -> None:
    for extra in ({}, {"lower_order_final": False}, {"use_karras_sigmas": True}):
        compare("DEISMultistepScheduler", {"solver_order": order, **extra}, 1, 2, 3, 4, 15)


@pytest.mark.parametrize(
    "overrides",
    [
        {"final_sigmas_type": "sigma_min"},
        {"interpolation_type": "log_linear"},
        {"timestep_type": "continuous"},
        {"sigma_min": 0.1, "sigma_max": 10.0, "use_karras_sigmas": True},
        {"sigma_min": 0.1, "sigma_max": 10.0, "use_exponential_sigmas": True},
        {"beta_schedule": "linear"},
        {"steps_offset": 7},
        {"num_train_timesteps": 500},
    ],
    ids=str,
)
def test_euler(overrides: dict[str, Any]) -> None:
    for prediction in ("epsilon", "v_prediction"):
        compare(EULER, {**overrides, "prediction_type": prediction}, 2, 7, 30)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_eta(eta: float) -> None:
    compare(DDIM, {}, 1, 4, 25, eta=eta)
    compare(DDIM, {"set_alpha_to_one": True, "timestep_spacing": "trailing"}, 1, 4, 25, eta=eta)
    compare("TCDScheduler", {"original_inference_steps": 100}, 1, 4, 25, eta=eta)


@pytest.mark.parametrize("name", [DDIM, "DDPMScheduler", "LCMScheduler", EULER, DPM, UNIPC])
def test_zero_terminal_snr(name: str) -> None:
    overrides = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    if name != "LCMScheduler":
        overrides["timestep_spacing"] = "trailing"
    # solvers that start at sigma = 4096 subtract noise of that size from noise of that size, in float32
    compare(name, overrides, 4, 25, tolerance=1e-3 if name in (EULER, DPM, UNIPC) else 1e-4)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_small_log", "fixed_large"])
def test_ddpm_variances(variance: str) -> None:
    for spacing in ("leading", "trailing"):
        compare("DDPMScheduler", {"variance_type": variance, "timestep_spacing": spacing}, 1, 4, 25)


@pytest.mark.parametrize(
    ("name", "beta_schedule"),
    [("DDPMScheduler", "laplace"), ("DDPMScheduler", "sigmoid"), ("HeunDiscreteScheduler", "exp")],
)
def test_beta_schedules_of_single_solvers(name: str, beta_schedule: str) -> None:
    compare(name, {"beta_schedule": beta_schedule, "prediction_type": "v_prediction"}, 12)


def test_trained_betas() -> None:
    betas = np.linspace(0.001, 0.01, 1000)
    compare(EULER, {"trained_betas": betas.tolist()}, 12)
    from_list, from_array = (
        make_schedule(SDXL, overrides={"trained_betas": given}, num_inference_steps=12)
        for given in (betas.tolist(), betas)
    )
    assert np.array_equal(from_list.update, from_array.update)


def test_runge_kutta_start() -> None:
    for chosen in combinations(
        prediction_type=("epsilon", "v_prediction"), timestep_spacing=("linspace", "leading", "trailing")
    ):
        compare("PNDMScheduler", {"skip_prk_steps": False, **chosen}, 4, 5, 30)


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
def test_distilled_timesteps(name: str) -> None:
    compare(name, {"original_inference_steps": 100, "timestep_scaling": 5.0}, 6)


@pytest.mark.parametrize("schedule", ["karras", "exponential"])
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
def test_edm(schedule: str, final: str) -> None:
    levels = {"sigma_min": 0.01, "sigma_max": 60.0, "sigma_data": 0.7, "rho": 6.0}
    base: dict[str, Any] = {**levels, "sigma_schedule": schedule, "final_sigmas_type": final}
    compare("EDMEulerScheduler", base, 1, 2, 25)
    for order in (1, 2, 3):
        compare(EDM_DPM, {**base, "solver_order": order}, 1, 2, 14)
    compare(EDM_DPM, {**base, "algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}, 1, 2, 14)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        (DPM, {"solver_order": 3}),
        (DPM, {"solver_order": 3, "use_beta_sigmas": True}),
        (SINGLE, {"solver_order": 3, "solver_type": "heun", "use_beta_sigmas": True}),
        (UNIPC, {"solver_order": 3, "use_karras_sigmas": True}),
        ("DEISMultistepScheduler", {"solver_order": 3}),
    ],
    ids=str,
)
def test_third_order_with_many_steps_is_as_close_as_diffusers_rounding_allows(
    name: str, overrides: dict[str, Any]
) -> None:
    single = run_diffusers(build(name, SDXL, overrides), steps=100)
    double = run_diffusers(build(name, SDXL, overrides), steps=100, double=True)
    ours = run_matrices(make_schedule(SDXL, solver=name, overrides=overrides, num_inference_steps=100))
    assert relative_error(ours.latents, single.latents) < 2 * relative_error(double.latents, single.latents)
