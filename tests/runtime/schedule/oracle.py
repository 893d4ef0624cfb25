"""Runs a diffusers scheduler as diffusers' SDXL pipelines do, on random network outputs, and the same by matrices."""

import contextlib
import inspect
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import diffusers
import numpy as np
import torch
from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_img2img as img2img
from sdengine.runtime.schedule import STATE_SLOTS, Schedule, make_schedule

SHAPE = (1, 2, 4, 4)
MASK = np.tile([0.0, 1.0], (*SHAPE[:3], SHAPE[3] // 2)).astype(np.float32)

SDXL: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
"""The scheduler config that SDXL base 1.0 ships with."""


SIGMA_SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Latents after each evaluation, what the network saw and was told, and how often noise was drawn."""

    latents: np.ndarray
    inputs: np.ndarray
    timesteps: np.ndarray
    draws: list[bool]
    blends: np.ndarray


@contextlib.contextmanager
def diffusers_warnings_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*dpmsolver.*")
        warnings.filterwarnings("ignore", category=DeprecationWarning, message="__array__ implementation")
        warnings.filterwarnings("ignore", category=DeprecationWarning, message="__array_wrap__ must accept")
        yield


@diffusers_warnings_ignored()
def build(name: str, config: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Any:
    """``from_config`` of diffusers, without its warnings about the config's other keys."""
    diffusers.logging.set_verbosity_error()
    scheduler = getattr(diffusers, name)
    if name.startswith(("KDPM2", "Heun", "DPMSolverSDE")):
        # their constructors space 1000 sigmas, which takes longer than the test
        with mock.patch.object(scheduler, "set_timesteps", lambda self, *_: setattr(self, "sigmas", torch.zeros(1))):
            return scheduler.from_config(dict(config), **(overrides or {}))
    return scheduler.from_config(dict(config), **(overrides or {}))


def compare(
    name: str,
    overrides: Mapping[str, Any],
    *steps: int | None,
    tolerance: float = 1e-4,
    inpaint: bool = False,
    **request: Any,
) -> None:
    """Run both ways, for several numbers of steps, and assert that they agree."""
    scheduler = build(name, SDXL, overrides)
    for count in steps or (None,):
        if name == "DPMSolverSinglestepScheduler":  # set_timesteps changes its config for good
            scheduler = build(name, SDXL, overrides)
        theirs = run_diffusers(scheduler, steps=count, inpaint=inpaint, **request)
        schedule = make_schedule(SDXL, solver=name, overrides=overrides, num_inference_steps=count, **request)
        assert_same(run_matrices(schedule, inpaint=inpaint), theirs, tolerance)


@diffusers_warnings_ignored()
def run_diffusers(
    scheduler: Any,
    *,
    steps: int | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    strength: float | None = None,
    denoising_start: float | None = None,
    denoising_end: float | None = None,
    eta: float = 0.0,
    double: bool = False,
    inpaint: bool = False,
) -> Trajectory:
    """Draw with a scheduler.

    ``double`` lifts its tables to float64 first, to tell its rounding from our errors; ``inpaint`` blends a known
    picture into one half of the latent after every evaluation.
    """
    stamps, count = img2img.retrieve_timesteps(scheduler, steps, "cpu", timesteps, sigmas)
    if double:
        for name in ("sigmas", "alphas_cumprod"):
            if hasattr(scheduler, name):
                setattr(scheduler, name, getattr(scheduler, name).double())
    if strength is not None or denoising_start is not None:
        pipe = mock.Mock(scheduler=scheduler)
        stamps, count = img2img.StableDiffusionXLImg2ImgPipeline.get_timesteps(
            pipe, count, 1.0 if strength is None else strength, "cpu", denoising_start=denoising_start
        )
    elif hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # as inpainting does; else add_noise takes the wrong one of two equal timesteps
    dtype = torch.float64 if double else torch.float32
    noise = torch.from_numpy(random_tensor(0, "initial")).to(dtype)
    picture = torch.from_numpy(random_tensor(0, "picture")).to(dtype)
    if denoising_start is not None:
        latent = picture
    elif strength is not None:
        latent = scheduler.add_noise(picture, noise, stamps[:1])
    else:
        latent = noise * scheduler.init_noise_sigma
    if denoising_end is not None:
        total = scheduler.config.num_train_timesteps
        cutoff = round(total - denoising_end * total)
        stamps = stamps[: len([t for t in stamps if t >= cutoff])]

    extra = {"eta": eta} if "eta" in inspect.signature(scheduler.step).parameters else {}
    module = sys.modules[type(scheduler).__module__]
    latents, inputs, draws, blends = [latent], [], [], []
    for i, t in enumerate(stamps):
        drawn: list[bool] = []

        def randn_tensor(shape: Any, *_: Any, i: int = i, drawn: list[bool] = drawn, **__: Any) -> torch.Tensor:
            assert tuple(shape) == SHAPE
            drawn.append(True)
            return torch.from_numpy(random_tensor(i, "fresh")).to(dtype)

        with mock.patch.object(module, "randn_tensor", randn_tensor, create=True):
            inputs.append(scheduler.scale_model_input(latent, t))
            output = torch.from_numpy(random_tensor(i, "output")).to(dtype)
            latent = scheduler.step(output, t, latent, return_dict=False, **extra)[0]
        assert len(drawn) <= 1
        draws.append(bool(drawn))
        latents.append(latent)
        known = picture if i + 1 == len(stamps) else scheduler.add_noise(picture, noise, stamps[i + 1 : i + 2])
        blends.append(known)
        if inpaint:
            mask = torch.from_numpy(MASK)
            latents[-1] = latent = mask * latent + (1 - mask) * known
    return Trajectory(
        latents=torch.stack(latents).double().numpy(),
        inputs=torch.stack(inputs).double().numpy(),
        timesteps=stamps.double().numpy(),
        draws=draws,
        blends=torch.stack(blends).double().numpy(),
    )


def run_matrices(schedule: Schedule, *, inpaint: bool = False) -> Trajectory:
    noise, picture = random_tensor(0, "initial"), random_tensor(0, "picture")
    state = np.zeros((STATE_SLOTS, *SHAPE))
    state[0] = schedule.start[0] * picture + schedule.start[1] * noise
    latents, inputs = [state[0]], []
    for i in range(schedule.evaluations):
        inputs.append(schedule.input_scale[i] * state[0])
        output, (of_latent, of_output) = random_tensor(i, "output"), schedule.predict[i]
        clipped = np.clip(of_latent * state[0] + of_output * output, -schedule.clip, schedule.clip)
        seen = np.concatenate([state, output[None], clipped[None], random_tensor(i, "fresh")[None]])
        state = np.einsum("kc,cbdhw->kbdhw", schedule.update[i], seen)
        if inpaint:
            signal, factor = schedule.blend[i]
            state[0] = MASK * state[0] + (1 - MASK) * (signal * picture + factor * noise)
        latents.append(state[0])
    return Trajectory(
        latents=np.stack(latents),
        inputs=np.stack(inputs),
        timesteps=schedule.timesteps,
        draws=schedule.needs_noise.tolist(),
        blends=np.stack([signal * picture + factor * noise for signal, factor in schedule.blend]),
    )


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference in a tensor over the largest value in it, the worst of all tensors."""
    axes = tuple(range(1, theirs.ndim))
    size = np.maximum(np.abs(theirs).max(axis=axes), 1e-3)
    return float((np.abs(ours - theirs).max(axis=axes) / size).max())


def assert_same(ours: Trajectory, theirs: Trajectory, tolerance: float = 1e-4, *, draws: bool = True) -> None:
    np.testing.assert_allclose(ours.timesteps, theirs.timesteps, rtol=0, atol=1e-3)
    assert not draws or ours.draws == theirs.draws
    assert np.isfinite(theirs.latents).all()
    for what in ("latents", "inputs", "blends"):
        error = relative_error(getattr(ours, what), getattr(theirs, what))
        assert error <= tolerance, f"{what} differ by {error:.2g}"


_CACHE: dict[tuple[int, str], np.ndarray] = {}


def random_tensor(i: int, kind: str) -> np.ndarray:
    """Return the random numbers of an evaluation; ``kind`` says what for."""
    key = (i, kind)
    if key not in _CACHE:
        seed = [i, *kind.encode()]
        _CACHE[key] = np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32).astype(np.float64)
    return _CACHE[key]
