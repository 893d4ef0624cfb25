"""Runs a network before or behind the denoiser and checks its outputs, as float16 overflows in some of them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...engines.engine import Array
from ...engines.errors import NonFiniteError
from ...engines.memory import Buffer
from ...engines.nets.vae_config import VAEConfig
from ..open_engines import Components
from .tiles import Tiling, blended
from .vae_tiling import tile_side

__all__ = ["decoded", "encoded", "run_finite"]


def encoded(components: Components, inputs: Mapping[str, Buffer], warnings: list[str]) -> NDArray[np.float32]:
    """Encode an image to latents; a large one in tiles, see :func:`~.vae_tiling.tile_side`.

    Args:
        components: the engines.
        inputs: ``image``, float32 [1, H, W, 3] of 0 to 1, and ``noise``, float32 [1, C, h, w], if there is any.
        warnings: where to say that a second run was needed, or why the image is cut into tiles.

    Returns:
        float32 [1, C, h, w].

    """
    height, width = inputs["image"].shape[1:3]
    with components.use("vae_encoder"):
        side = tile_side(components, "vae_encoder", height, width, warnings)
        if side is None:
            return np.asarray(run_finite(components, "vae_encoder", inputs, warnings, "latent", "latent"), np.float32)
        config = components.bundle.autoencoder
        assert isinstance(config, VAEConfig)
        image, noise = (np.asarray(inputs[name], np.float32) for name in ("image", "noise"))

        def run(rows: slice, columns: slice) -> NDArray[np.float32]:
            tile = np.ascontiguousarray(image[:, rows, columns])
            none = np.zeros((1, config.latent, *(length // config.factor for length in tile.shape[1:3])), np.float32)
            given = {"image": tile, "noise": none}
            moments = run_finite(components, "vae_encoder", given, warnings, "latent", "moments")
            return np.array(moments[0].transpose(1, 2, 0), np.float32)

        whole = blended(Tiling(taken=side, given=side // config.factor), height, width, run)
        return _sampled(config, whole.transpose(2, 0, 1)[None], noise)


def _sampled(config: VAEConfig, moments: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sample latents of the UNet; what :class:`~sdengine.engines.nets.vae.VAEEncoder` does in its graph."""
    mean, log_variance = np.split(moments, 2, axis=1)
    z = mean + np.exp(np.float32(0.5) * np.clip(log_variance, -30.0, 20.0)) * noise
    shift = np.array(config.mean or (0.0,) * config.latent, np.float32)[:, None, None]
    spread = np.array(config.std or (1.0,) * config.latent, np.float32)[:, None, None]
    return np.ascontiguousarray((z - shift) * np.float32(config.scaling_factor) / spread, np.float32)


def decoded(components: Components, latent: Buffer, output: str, warnings: list[str]) -> Array:
    """Decode a latent; a large one in tiles, see :func:`~.vae_tiling.tile_side`.

    Args:
        components: the engines.
        latent: float32 [1, C, h, w], on the host or where the decoder runs.
        output: ``image``, numbers from 0 to 1, or ``picture``, bytes; both [1, H, W, 3].
        warnings: where to say that a second run was needed, or why the image is cut into tiles.

    """
    factor = components.bundle.autoencoder.factor
    height, width = (length * factor for length in latent.shape[2:])
    with components.use("vae_decoder"):
        side = tile_side(components, "vae_decoder", height, width, warnings)
        if side is not None:
            tiling = Tiling(taken=side // factor, given=side)
            pixels = np.clip(_decoded_in_tiles(components, latent, tiling, warnings), 0, 1)
            return (pixels * 255).round().astype(np.uint8) if output == "picture" else pixels
        found = run_finite(components, "vae_decoder", {"latent": latent}, warnings, "magnitude", output)
    return np.clip(found, 0, 1) if output == "image" else found


def _decoded_in_tiles(
    components: Components, latent: Buffer, tiling: Tiling, warnings: list[str]
) -> NDArray[np.float32]:
    whole = components.memory_of("vae_decoder").read(latent) if not isinstance(latent, np.ndarray) else latent

    def run(rows: slice, columns: slice) -> NDArray[np.float32]:
        given = {"latent": np.ascontiguousarray(whole[:, :, rows, columns])}
        image = run_finite(components, "vae_decoder", given, warnings, "magnitude", "image")
        return np.array(image[0], np.float32)

    _, _, height, width = whole.shape
    return blended(tiling, height, width, run)[None]


def run_finite(
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
