"""Runs a VAE and looks at what comes out: float16 overflows in some of them, which would make a black picture."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..engines.engine import Array
from ..engines.errors import NonFiniteError
from .components import Components

__all__ = ["run_finite"]


def run_finite(
    components: Components, name: str, inputs: Mapping[str, Array], warnings: list[str]
) -> NDArray[np.float32]:
    """Run a component with one output; where that is not finite, run it again in float32.

    Args:
        components: the engines.
        name: the component, such as ``vae_decoder``.
        inputs: its inputs.
        warnings: told about a second run.

    Raises:
        NonFiniteError: it is still not finite, or the bundle holds no other precision.

    """
    [output] = components.run(name, inputs).values()
    if np.isfinite(output).all():
        return np.asarray(output, np.float32)
    ran = components.precision_of(name)
    if ran != "fp32" and "fp32" in components.bundle.component(name).graphs:
        [output] = components.run(name, inputs, precision="fp32").values()
        if np.isfinite(output).all():
            warnings.append(f"{name} produced NaN or infinity in {ran} and was run again in fp32")
            return np.asarray(output, np.float32)
        ran = "fp32"
    remedy = "its input or its weights are not sound" if ran == "fp32" else "export with --precision fp32"
    raise NonFiniteError(f"{name} produced NaN or infinity in {ran} on {components.ran.get(name)}; {remedy}")
