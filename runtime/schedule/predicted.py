"""The x0 and the noise that a network's output predicts, for the three prediction types.

With ``x = alpha * x0 + sigma * eps``: epsilon predicts ``eps``, sample predicts ``x0``, v_prediction predicts
``alpha * eps - sigma * x0`` (https://arxiv.org/abs/2202.00512, appendix D).
"""

import numpy as np

from .combinations import CLIPPED, OUTPUT, Array, X
from .singles import Singles
from .solver import ScheduleRequest

__all__ = ["clipped_if_configured", "denoised_at_sigma", "noise_at", "signal_and_noise", "x0_at"]


def signal_and_noise(ratio: Singles) -> tuple[Singles, Singles]:
    """Return alpha and sigma of unit variance for a noise-to-signal ratio, in float32."""
    alpha = np.divide(1, np.sqrt(ratio**2 + 1), dtype=np.float32)
    return alpha, ratio * alpha


def x0_at(prediction: str, alpha: Array | Singles, sigma: Array | Singles, x: Array = X) -> Array:
    """Return the predicted x0 of a latent ``x`` with signal factor ``alpha`` and noise factor ``sigma``."""
    x0: Array
    if prediction == "epsilon":
        x0 = (x - sigma * OUTPUT) / alpha
    elif prediction == "sample":
        x0 = OUTPUT + 0 * alpha
    else:
        x0 = alpha * x - sigma * OUTPUT
    return x0


def clipped_if_configured(request: ScheduleRequest, x0: Array) -> tuple[Array, Array | None]:
    """Return the x0 to step with, and the value of :attr:`.solver.Steps.unclipped_x0`."""
    return (CLIPPED, x0) if request.options.clip_sample else (x0, None)


def noise_at(prediction: str, alpha: Array | Singles, sigma: Array | Singles, x: Array = X) -> Array:
    """Return the predicted noise eps of a latent ``x`` with signal factor ``alpha`` and noise factor ``sigma``."""
    noise: Array
    if prediction == "epsilon":
        noise = OUTPUT + 0 * alpha
    elif prediction == "sample":
        noise = (x - alpha * OUTPUT) / sigma
    else:
        noise = alpha * OUTPUT + sigma * x
    return noise


def denoised_at_sigma(request: ScheduleRequest, sigma: Array) -> Array:
    """Return the predicted x0 of a latent that is x0 plus ``sigma`` times noise (signal factor 1).

    The network's input was this latent divided by ``sqrt(sigma**2 + 1)``, and v is defined for that.
    """
    if request.options.prediction_type == "v_prediction":
        return X / (sigma**2 + 1) - sigma / np.sqrt(sigma**2 + 1) * OUTPUT
    return x0_at(request.options.prediction_type, np.ones_like(sigma), sigma)
