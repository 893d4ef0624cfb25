"""What the network's output says about the picture and the noise, for the three prediction types.

With ``x = alpha * x0 + sigma * eps``: epsilon predicts ``eps``, sample predicts ``x0``, v_prediction predicts
``alpha * eps - sigma * x0`` (https://arxiv.org/abs/2202.00512, appendix D).
"""

import numpy as np

from .rows import OUTPUT, Array, X
from .solver import Request

__all__ = ["denoised_at_sigma", "noise_at", "picture_at", "signal_and_noise"]


def signal_and_noise(sigma: Array) -> tuple[Array, Array]:
    """Return alpha and sigma of unit variance for a noise-to-signal ratio."""
    alpha = 1 / np.sqrt(sigma**2 + 1)
    return alpha, sigma * alpha


def picture_at(prediction: str, alpha: Array, sigma: Array, x: Array = X) -> Array:
    """Return the predicted picture x0 of a latent ``x`` with signal factor ``alpha`` and noise factor ``sigma``."""
    if prediction == "epsilon":
        return (x - sigma * OUTPUT) / alpha
    if prediction == "sample":
        return OUTPUT + 0 * alpha
    return alpha * x - sigma * OUTPUT


def noise_at(prediction: str, alpha: Array, sigma: Array, x: Array = X) -> Array:
    """Return the predicted noise eps of a latent ``x`` with signal factor ``alpha`` and noise factor ``sigma``."""
    if prediction == "epsilon":
        return OUTPUT + 0 * alpha
    if prediction == "sample":
        return (x - alpha * OUTPUT) / sigma
    return alpha * OUTPUT + sigma * x


def denoised_at_sigma(request: Request, sigma: Array) -> Array:
    """Return the predicted picture of a latent that is the picture plus ``sigma`` times noise (signal factor 1).

    The network saw this latent divided by ``sqrt(sigma**2 + 1)``, and v is defined for that.
    """
    if request.options.prediction_type == "v_prediction":
        return X / (sigma**2 + 1) - sigma / np.sqrt(sigma**2 + 1) * OUTPUT
    return picture_at(request.options.prediction_type, np.ones_like(sigma), sigma)
