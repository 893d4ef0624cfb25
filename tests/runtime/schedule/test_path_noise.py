"""DPM++ SDE: the same numbers for the same noise, and noise of the same distribution as a Brownian path's."""

import math
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torchsde
from diffusers.schedulers import scheduling_dpmsolver_sde as reference
from sdengine.runtime.schedule import make_schedule

from .oracle import SDXL, assert_same, build, random_tensor, run_diffusers, run_matrices

NAME = "DPMSolverSDEScheduler"

CASES: tuple[tuple[int, dict[str, Any]], ...] = (
    (1, {}),
    (2, {}),
    (3, {}),
    (40, {}),
    (20, {"strength": 0.6}),
    (20, {"denoising_end": 0.5}),
)


class PathNoise:
    """Increments of one path, normalised, made from the noise our side draws at each evaluation."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.evaluation = -1
        self.first: tuple[float, float, torch.Tensor] | None = None

    def __call__(self, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
        self.evaluation += 1
        fresh = torch.from_numpy(random_tensor(self.evaluation, "fresh")).float()
        if self.first is None:
            self.first = start.item(), end.item(), fresh
            return fresh
        (begin, middle, known), self.first = self.first, None
        assert math.isclose(begin, start.item(), rel_tol=1e-5)
        path = math.sqrt(begin - middle) * known + math.sqrt(middle - end.item()) * fresh
        return path / math.sqrt(begin - end.item())


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize(
    "sigmas", [{}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True}], ids=str
)
def test_same_numbers_for_the_same_path(spacing: str, sigmas: dict[str, bool]) -> None:
    for prediction in ("epsilon", "v_prediction"):
        overrides = {"timestep_spacing": spacing, "prediction_type": prediction, **sigmas}
        for steps, cut in CASES:
            with mock.patch.object(reference, "BrownianTreeNoiseSampler", PathNoise):
                theirs = run_diffusers(build(NAME, SDXL, overrides), steps=steps, **cut)
            schedule = make_schedule(SDXL, solver=NAME, overrides=overrides, num_inference_steps=steps, **cut)
            assert_same(run_matrices(schedule), theirs, draws=False)


def test_the_two_noises_of_a_step_are_correlated_as_on_a_brownian_path() -> None:
    start, middle, end = 4.0, 2.0, 1.0
    size = 200_000
    path = torchsde.BrownianInterval(t0=0.5, t1=5.0, size=(size,), entropy=5, dtype=torch.float64)
    to_middle = path(middle, start) / math.sqrt(start - middle)
    to_end = path(end, start) / math.sqrt(start - end)
    wanted = math.sqrt((start - middle) / (start - end))
    assert torch.corrcoef(torch.stack([to_middle, to_end]))[0, 1].item() == pytest.approx(wanted, abs=0.005)

    schedule = make_schedule(SDXL, solver=NAME, num_inference_steps=5)
    sigma = np.sqrt(1 / schedule.input_scale**2 - 1)  # start, middle, start, middle, ..., start of the last step
    for i in range(0, 8, 2):
        assert schedule.update[i, 2].tolist() == [
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            1,
        ]  # slot 2 remembers the first noise of the step
        share = (sigma[i] - sigma[i + 1]) / (sigma[i] - sigma[i + 2])
        known, fresh = schedule.update[i + 1, 0, [2, 7]]
        assert known / math.hypot(known, fresh) == pytest.approx(math.sqrt(share), rel=1e-6)


def test_noise_is_drawn_wherever_the_level_is_above_zero() -> None:
    schedule = make_schedule(SDXL, solver=NAME, num_inference_steps=5)
    assert schedule.needs_noise.tolist() == [True] * 8 + [False]
    assert np.all(schedule.update[-1][0, 7] == 0)
