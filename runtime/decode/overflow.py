"""Runs a VAE and checks its outputs: float16 overflows in some of them, which would make a black image."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...engines.engine import Array
from ...engines.errors import NonFiniteError
from ...engines.memory import Buffer
from ..open_engines import Components

__all__ = ["decoded", "encoded"]


def encoded(components: Components, inputs: Mapping[str, Buffer], warnings: list[str]) -> NDArray[np.float32]:
    """Encode images to latents, [N, C, h, w]; see :func:`_run_finite`."""
    return np.asarray(_run_finite(components, "vae_encoder", inputs, warnings, "latent", "latent"), np.float32)


def decoded(components: Components, latent: Buffer, output: str, warnings: list[str]) -> Array:
    """Decode latents; see :func:`_run_finite`.

    Args:
        components: the engines.
        latent: float32 [S, C, h, w], on the host or where the decoder runs.
        output: ``image``, numbers from 0 to 1, or ``picture``, bytes; both [S, H, W, 3].
        warnings: where to say that a second run was needed.

    """
    return _run_finite(components, "vae_decoder", {"latent": latent}, warnings, "magnitude", output)


def _run_finite(
    components: Components, name: str, inputs: Mapping[str, Buffer], warnings: list[str], check: str, output: str
) -> Array:
    """Run a component and return an output; where it is not finite, run it again in float32.

    Only the outputs that are read leave the engine's memory.

    Args:
        components: the engines.
        name: the component.
        inputs: its inputs.
        warnings: where to say that a second run was needed.
        check: the output that is not finite where anything was not.
        output: the output to return.

    Raises:
        NonFiniteError: it is still not finite, or the bundle holds no other precision.

    """
    memory = components.memory_of(name)
    outputs = components.run_into(memory, name, inputs)
    if np.isfinite(memory.read(outputs[check])).all():
        return memory.read(outputs[output])
    ran = components.precision_of(name)
    if ran != "fp32" and "fp32" in components.bundle.component(name).graphs:
        again = components.run(name, inputs, precision="fp32")
        if np.isfinite(again[check]).all():
            warnings.append(f"{name} produced NaN or infinity in {ran} and was run again in fp32")
            return again[output]
        ran = "fp32"
    remedy = "its input or its weights are not sound" if ran == "fp32" else "export with --precision fp32"
    raise NonFiniteError(f"{name} produced NaN or infinity in {ran} on {components.ran.get(name)}; {remedy}")
