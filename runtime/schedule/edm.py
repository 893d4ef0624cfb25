"""Euler and DPM-Solver++ in EDM's own preconditioning (https://arxiv.org/abs/2206.00364, table 1, last column).

They are for checkpoints trained that way: the noise levels lie between ``sigma_max`` and ``sigma_min`` and do not
follow from betas, and the network's timestep is ``log(sigma) / 4``.
"""

from collections.abc import Callable

import numpy as np

from ...engines.errors import UsageError
from .combinations import OUTPUT, Array, Indices, X
from .dpm_multistep import check_order, multistep
from .dpm_step import DPM_SYNONYMS
from .sigma_space import sigma_level
from .singles import Singles, rounded
from .solver import Grid, ScheduleRequest, Solver, Steps
from .solver_options import OptionTable
from .spacing import exponential_sigmas, karras_sigmas

__all__ = ["EDM_DPM_MULTISTEP", "EDM_EULER"]


def _denoised(request: ScheduleRequest, sigma: Array) -> Array:
    data = request.options.sigma_data
    c_skip = data**2 / (sigma**2 + data**2)
    c_out = sigma * data / np.sqrt(sigma**2 + data**2)
    return c_skip * X + (c_out if request.options.prediction_type == "epsilon" else -c_out) * OUTPUT


def _input_scale(request: ScheduleRequest, sigma: Array) -> Array:
    return 1 / np.hypot(sigma, request.options.sigma_data)


def _grid(request: ScheduleRequest, lowest: Callable[[Array, float], float]) -> Grid:
    options, n = request.options, request.step_count
    low, high = options.sigma_min, options.sigma_max
    if low is None or high is None or not 0 < low < high:
        raise UsageError(f"{request.solver} needs 0 < sigma_min < sigma_max, not {low} and {high}")
    if options.sigma_schedule == "karras":
        sigmas = rounded(karras_sigmas(high, low, n, options.rho))
    else:
        sigmas = rounded(
            exponential_sigmas(low, high, n)[::-1]
        )  # computed from the low end: a single step begins at sigma_min
    final = 0.0 if options.final_sigmas_type == "zero" else lowest(sigmas, low)
    return Grid(
        timesteps=rounded(0.25 * np.log(sigmas)),
        sigmas=rounded(np.append(sigmas, final)),
        initial_noise=float(np.hypot(high, 1)),
    )


def _euler_grid(request: ScheduleRequest) -> Grid:
    return _grid(request, lambda sigmas, _: float(sigmas[-1]))


def _euler_steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    sigma, sigma_next = grid.sigmas[i], grid.sigmas[i + 1]
    slope = (X - _denoised(request, sigma)) / sigma
    return Steps(
        new_state={0: X + (sigma_next - sigma) * slope},
        input_scale=_input_scale(request, sigma),
        needs_noise=np.zeros(len(i), dtype=bool),
    )


def _dpm_grid(request: ScheduleRequest) -> Grid:
    check_order(request, {"sde-dpmsolver++": 2})
    return _grid(request, lambda _, sigma_min: sigma_min)


def _dpm_steps(request: ScheduleRequest, grid: Grid, i: Indices) -> Steps:
    sigma = grid.sigmas[i]
    return multistep(request, grid, i, _denoised(request, sigma), sigma_factors, _input_scale(request, sigma))


def sigma_factors(sigma: Singles) -> tuple[Singles, Singles]:
    """Signal and noise factors of a latent that is x0 plus sigma times noise."""
    return np.ones_like(sigma), sigma


_OPTIONS = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}

EDM_EULER = Solver(
    name="EDMEulerScheduler",
    short_names={"edm_euler": {}},
    options=OptionTable(defaults=_OPTIONS, choices={"prediction_type": ("epsilon", "v_prediction")}),
    grid=_euler_grid,
    steps=_euler_steps,
    level=sigma_level,
)

EDM_DPM_MULTISTEP = Solver(
    name="EDMDPMSolverMultistepScheduler",
    short_names={"edm_dpmpp_2m": {}, "edm_dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++"}},
    options=OptionTable(
        defaults={
            **_OPTIONS,
            "solver_order": 2,
            "thresholding": False,
            "dynamic_thresholding_ratio": 0.995,
            "sample_max_value": 1.0,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": True,
            "euler_at_final": False,
        },
        choices={
            "prediction_type": ("epsilon", "v_prediction"),
            "solver_order": (1, 2, 3),
            "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
            "solver_type": ("midpoint", "heun"),
        },
        synonyms=DPM_SYNONYMS,
    ),
    grid=_dpm_grid,
    steps=_dpm_steps,
    level=sigma_level,
)
