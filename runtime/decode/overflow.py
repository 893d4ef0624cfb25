"""Runs a network beside the denoiser and checks its outputs: in float16 some VAEs overflow, and give black images."""

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
        inputs: ``image``, float32 [1, H, W, 3] of 0 to 1, and ``noise``, float32 [1, C, h, w], if the encoder takes it.
        warnings: gets a warning if a second run was needed, or the image is cut into tiles.

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
            zeros = np.zeros((1, config.latent, *(length // config.factor for length in tile.shape[1:3])), np.float32)
            tile_inputs = {"image": tile, "noise": zeros}  # the noise is added to the blended tiles
            moments = run_finite(components, "vae_encoder", tile_inputs, warnings, "latent", "moments")
            return np.array(moments[0].transpose(1, 2, 0), np.float32)

        moments = blended(Tiling(input_side=side, output_side=side // config.factor), height, width, run)
        return _sampled(config, moments.transpose(2, 0, 1)[None], noise)


def _sampled(config: VAEConfig, moments: NDArray[np.float32], noise: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sample latents, as :class:`~sdengine.engines.nets.vae.VAEEncoder` does in its graph.

    Args:
        config: of the VAE.
        moments: mean and logarithm of the variance, float32 [1, 2 * C, h, w].
        noise: float32 [1, C, h, w].

    """
    mean, log_variance = np.split(moments, 2, axis=1)
    z = mean + np.exp(np.float32(0.5) * np.clip(log_variance, -30.0, 20.0)) * noise
    shift = np.array(config.mean or (0.0,) * config.latent, np.float32)[:, None, None]
    spread = np.array(config.std or (1.0,) * config.latent, np.float32)[:, None, None]
    return np.ascontiguousarray((z - shift) * np.float32(config.scaling_factor) / spread, np.float32)


def decoded(components: Components, latent: Buffer, output: str, warnings: list[str]) -> Array:
    """Decode a latent; a large one in tiles, see :func:`~.vae_tiling.tile_side`.

    Args:
        components: the engines.
        latent: float32 [1, C, h, w], on the host or in the decoder's memory.
        output: ``image`` for float32 of 0 to 1, ``picture`` for uint8: the names of the decoder's outputs.
        warnings: gets a warning if a second run was needed, or the image is cut into tiles.

    Returns:
        [1, H, W, 3].

    """
    factor = components.bundle.autoencoder.factor
    height, width = (length * factor for length in latent.shape[2:])
    with components.use("vae_decoder"):
        side = tile_side(components, "vae_decoder", height, width, warnings)
        if side is not None:
            tiling = Tiling(input_side=side // factor, output_side=side)
            pixels = np.clip(_decoded_in_tiles(components, latent, tiling, warnings), 0, 1)
            return (pixels * 255).round().astype(np.uint8) if output == "picture" else pixels
        pixels_or_bytes = run_finite(components, "vae_decoder", {"latent": latent}, warnings, "magnitude", output)
    return np.clip(pixels_or_bytes, 0, 1) if output == "image" else pixels_or_bytes


def _decoded_in_tiles(
    components: Components, latent: Buffer, tiling: Tiling, warnings: list[str]
) -> NDArray[np.float32]:
    on_host = components.memory_of("vae_decoder").read(latent) if not isinstance(latent, np.ndarray) else latent

    def run(rows: slice, columns: slice) -> NDArray[np.float32]:
        tile = {"latent": np.ascontiguousarray(on_host[:, :, rows, columns])}
        image = run_finite(components, "vae_decoder", tile, warnings, "magnitude", "image")
        return np.array(image[0], np.float32)

    _, _, height, width = on_host.shape
    return blended(tiling, height, width, run)[None]


def run_finite(
    components: Components, name: str, inputs: Mapping[str, Buffer], warnings: list[str], check: str, output: str
) -> Array:
    """Run a component and return an output; if it overflowed, run it again in float32.

    Only the two outputs that are named here leave the engine's memory.

    Args:
        components: the engines.
        name: the component.
        inputs: its inputs.
        warnings: gets a warning if a second run was needed.
        check: an output that is not finite if anything in the network was not.
        output: the output to return.

    Raises:
        NonFiniteError: it is still not finite, or the bundle has no float32 graph.

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
