"""What the network's output says about the picture and the noise, for the three prediction types.

With ``x = alpha * x0 + sigma * eps``: epsilon predicts ``eps``, sample predicts ``x0``, v_prediction predicts
``alpha * eps - sigma * x0`` (https://arxiv.org/abs/2202.00512, appendix D).
"""

import numpy as np

from .rows import CLIPPED, OUTPUT, Array, X
from .singles import Singles
from .solver import Request

__all__ = ["clipped_if_asked", "denoised_at_sigma", "noise_at", "picture_at", "signal_and_noise"]


def signal_and_noise(ratio: Singles) -> tuple[Singles, Singles]:
    """Return alpha and sigma of unit variance for a noise-to-signal ratio, in float32."""
    alpha = np.divide(1, np.sqrt(ratio**2 + 1), dtype=np.float32)
    return alpha, ratio * alpha


def picture_at(prediction: str, alpha: Array | Singles, sigma: Array | Singles, x: Array = X) -> Array:
    """Return the predicted picture x0 of a latent ``x`` with signal factor ``alpha`` and noise factor ``sigma``."""
    picture: Array
    if prediction == "epsilon":
        picture = (x - sigma * OUTPUT) / alpha
    elif prediction == "sample":
        picture = OUTPUT + 0 * alpha
    else:
        picture = alpha * x - sigma * OUTPUT
    return picture


def clipped_if_asked(request: Request, picture: Array) -> tuple[Array, Array | None]:
    """Return the predicted picture to step with, and what :attr:`.solver.Steps.picture` is to be."""
    return (CLIPPED, picture) if request.options.clip_sample else (picture, None)


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


def denoised_at_sigma(request: Request, sigma: Array) -> Array:
    """Return the predicted picture of a latent that is the picture plus ``sigma`` times noise (signal factor 1).

    The network saw this latent divided by ``sqrt(sigma**2 + 1)``, and v is defined for that.
    """
    if request.options.prediction_type == "v_prediction":
        return X / (sigma**2 + 1) - sigma / np.sqrt(sigma**2 + 1) * OUTPUT
    return picture_at(request.options.prediction_type, np.ones_like(sigma), sigma)
