"""What one request to the server may ask for at the most."""

from dataclasses import dataclass

__all__ = ["LORAS_MOST", "STRENGTH_MOST", "Limits"]

LORAS_MOST = 8
"""LoRAs of one request."""
STRENGTH_MOST = 10
"""Of a LoRA, in either direction."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for.

    Attributes:
        n: images.
        steps: steps of the solver, custom timesteps included.
        image_pixels: pixels of a picture that is sent.
        timeout: seconds until a request's time is over, waiting included.
        body: bytes of a request's body.
        body_timeout: seconds without a byte of a body that has begun.

    """

    n: int = 10
    steps: int = 200
    image_pixels: int = 2**24
    timeout: float = 600.0
    body: int = 64 * 2**20
    body_timeout: float = 30.0
