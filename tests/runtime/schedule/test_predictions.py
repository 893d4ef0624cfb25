"""The three prediction types are one network said three ways, also where diffusers implements only two of them."""

import numpy as np
import pytest
from sdengine.runtime.schedule import STATE_SLOTS, make_schedule

from .oracle import SDXL


def draw(solver: str, prediction: str) -> np.ndarray:
    """Draw with a network that predicts given noise, and says so in the given way."""
    overrides = {"prediction_type": prediction}
    schedule = make_schedule(SDXL, solver=solver, overrides=overrides, num_inference_steps=7)
    rng = np.random.default_rng(3)
    state = np.zeros((STATE_SLOTS, 16))
    state[0] = schedule.start[1] * rng.standard_normal(16)
    for i in range(schedule.evaluations):
        eps, fresh = rng.standard_normal((2, 16))
        alpha = schedule.input_scale[i]  # these solvers scale the latent to unit variance
        sigma = np.sqrt(1 - alpha**2)
        x0 = (alpha * state[0] - sigma * eps) / alpha
        output = {"epsilon": eps, "sample": x0, "v_prediction": alpha * eps - sigma * x0}[prediction]
        state = schedule.update[i] @ np.stack([*state, output, 0 * x0, fresh])
    latent: np.ndarray = state[0]
    return latent


@pytest.mark.parametrize("solver", ["euler", "euler_a", "heun", "dpm2", "dpm2_a", "dpmpp_sde", "lms"])
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_prediction_types_agree(solver: str, prediction: str) -> None:
    np.testing.assert_allclose(draw(solver, prediction), draw(solver, "epsilon"), rtol=1e-8, atol=1e-10)
