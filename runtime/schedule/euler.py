"""Euler's method on the probability-flow ODE, plain and ancestral.

In the variables of "Elucidating the Design Space of Diffusion-Based Generative Models" (Karras et al.,
https://arxiv.org/abs/2206.00364): the latent is signal plus sigma times noise, and what the network sees is that
divided by ``sqrt(sigma**2 + 1)``.
"""

import numpy as np

from .options import BETAS, OptionTable
from .prediction import denoised_at_sigma
from .rows import NOISE, Array, Indices, X
from .solver import Grid, Request, Solver, Steps
from .spacing import final_sigma, respaced_sigmas, spaced_timesteps, timestep_from_sigma

__all__ = ["EULER", "EULER_ANCESTRAL", "initial_noise", "input_scale", "sigma_level"]


def input_scale(sigma: Array) -> Array:
    """Return the factor that gives the network's input unit variance."""
    return 1 / np.sqrt(sigma**2 + 1)


def initial_noise(request: Request, sigmas: Array) -> float:
    """Return the factor of the initial noise: ``sigma_max``, or with "leading" spacing ``sqrt(sigma_max**2 + 1)``."""
    top = float(sigmas.max())
    return float(np.hypot(top, 1)) if request.options.timestep_spacing == "leading" else top


def sigma_level(_request: Request, grid: Grid, i: Indices) -> tuple[Array, Array]:
    """Signal and noise factors of a latent at evaluation ``i``: the picture itself plus sigma times noise."""
    sigma = grid.sigmas[i]
    return np.ones_like(sigma), sigma


def _euler_grid(request: Request) -> Grid:
    options, levels = request.options, request.levels
    if request.sigmas is not None:
        given = np.array(request.sigmas, dtype=np.float32)
        return _told_by_sigma(request, timestep_from_sigma(given[:-1], levels), given.astype(np.float64))
    n = request.step_count
    timesteps = spaced_timesteps(options, n) if request.timesteps is None else np.array(request.timesteps)
    timesteps = timesteps.astype(np.float32).astype(np.float64)
    if options.interpolation_type == "log_linear":
        log = levels.log_sigmas.astype(np.float64)
        sigmas = np.exp(np.linspace(log[-1], log[0], n + 1))
    else:
        sigmas = np.interp(timesteps, np.arange(len(levels.sigmas)), levels.sigmas)
    respaced = respaced_sigmas(options, sigmas[0], sigmas[-1], n)
    if respaced is not None:
        sigmas, timesteps = respaced, timestep_from_sigma(respaced, levels)
    return _told_by_sigma(request, timesteps, np.append(sigmas, final_sigma(options, levels)))


def _told_by_sigma(request: Request, timesteps: Array, sigmas: Array) -> Grid:
    sigmas = sigmas.astype(np.float32).astype(np.float64)
    if request.options.timestep_type == "continuous" and request.options.prediction_type == "v_prediction":
        timesteps = 0.25 * np.log(sigmas[:-1])
    timesteps = timesteps.astype(np.float32).astype(np.float64)
    return Grid(timesteps=timesteps, sigmas=sigmas, initial_noise=initial_noise(request, sigmas))


def _euler_steps(request: Request, grid: Grid, i: Indices) -> Steps:
    sigma, sigma_next = grid.sigmas[i], grid.sigmas[i + 1]
    derivative = (X - denoised_at_sigma(request, sigma)) / sigma
    x_next = X + (sigma_next - sigma) * derivative
    return Steps(new_state={0: x_next}, input_scale=input_scale(sigma), noise_draws=np.zeros(len(i), dtype=bool))


def _ancestral_grid(request: Request) -> Grid:
    timesteps = spaced_timesteps(request.options, request.step_count).astype(np.float32).astype(np.float64)
    trained = request.levels.sigmas
    sigmas = np.append(np.interp(timesteps, np.arange(len(trained)), trained), 0.0)
    sigmas = sigmas.astype(np.float32).astype(np.float64)
    return Grid(timesteps=timesteps, sigmas=sigmas, initial_noise=initial_noise(request, sigmas))


def _ancestral_steps(request: Request, grid: Grid, i: Indices) -> Steps:
    sigma, sigma_next = grid.sigmas[i], grid.sigmas[i + 1]
    derivative = (X - denoised_at_sigma(request, sigma)) / sigma
    # The step goes below sigma_next and fresh noise comes back up to it: up**2 + down**2 = sigma_next**2.
    up = sigma_next * np.sqrt(1 - (sigma_next / sigma) ** 2)
    down = sigma_next**2 / sigma
    x_next = X + (down - sigma) * derivative + up * NOISE
    return Steps(new_state={0: x_next}, input_scale=input_scale(sigma), noise_draws=np.ones(len(i), dtype=bool))


_EULER_OPTIONS = {
    **BETAS,
    "prediction_type": "epsilon",
    "interpolation_type": "linear",
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "sigma_min": None,
    "sigma_max": None,
    "timestep_spacing": "linspace",
    "timestep_type": "discrete",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
    "final_sigmas_type": "zero",
}

_ANCESTRAL_OPTIONS = {
    **BETAS,
    "prediction_type": "epsilon",
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}

EULER = Solver(
    name="EulerDiscreteScheduler",
    short_names={"euler": {}, "euler_karras": {"use_karras_sigmas": True}},
    options=OptionTable(defaults=_EULER_OPTIONS),
    grid=_euler_grid,
    steps=_euler_steps,
    level=sigma_level,
    takes=frozenset({"timesteps", "sigmas"}),
)

EULER_ANCESTRAL = Solver(
    name="EulerAncestralDiscreteScheduler",
    short_names={"euler_a": {}, "euler_ancestral": {}},
    options=OptionTable(defaults=_ANCESTRAL_OPTIONS),
    grid=_ancestral_grid,
    steps=_ancestral_steps,
    level=sigma_level,
)
