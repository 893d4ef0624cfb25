"""Decides whether the VAE runs on a whole image or in tiles."""

import re

from ...engines.cuda.gpu import device_number, free_memory
from ...engines.errors import EngineError, UsageError
from ...engines.host_memory import free_host_memory
from ...engines.nets.vae_config import VAEConfig
from ...engines.registry import ENGINES
from ..open_engines import Components
from .tiles import Tiling

__all__ = ["check_vae_tiling", "scratch_bytes", "tile_side"]

_LEAST = 256
"""Side in pixels of the smallest tile that ``auto`` chooses."""
_SHARE = 0.8
"""Share of the free memory that the VAE may take."""
_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def check_vae_tiling(value: object) -> str | int:
    """Return ``auto``, ``on``, ``off`` or the side of a tile in pixels.

    Raises:
        UsageError: it is none of these.

    """
    if value in ("auto", "on", "off"):
        return str(value)
    if isinstance(value, str) and re.fullmatch(r"\d+", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"vae_tiling={value!r} is neither auto, on, off nor the side of a tile in pixels")
    return value


def tile_side(components: Components, name: str, height: int, width: int, warnings: list[str]) -> int | None:
    """Return the side of the tiles in pixels, or None if the image is not cut.

    Args:
        components: the engines, and the setting ``vae_tiling``.
        name: ``vae_decoder`` or ``vae_encoder``.
        height: of the image, in pixels.
        width: of the image, in pixels.
        warnings: gets a warning if ``auto`` decides for tiles.

    Raises:
        UsageError: tiles were requested or are needed, and the bundle's VAE does not take them.

    """
    config = components.bundle.autoencoder
    setting = components.vae_tiling
    if not isinstance(config, VAEConfig):
        if setting not in ("auto", "off"):
            raise UsageError(f"vae_tiling={setting}: the decoder of this family cannot work in tiles")
        return None
    spec = components.spec(name)
    most = min(spec.axes[axis].max * config.factor for axis in ("h", "w"))
    side = setting if isinstance(setting, int) else min(config.sample_size, most)
    if setting == "off":
        if max(height, width) > most:
            raise UsageError(f"vae_tiling=off: this bundle's VAE takes up to {most} pixels; it was exported for tiles")
        return None
    if setting == "auto":
        reason = _reason(components, name, height, width, most)
        if reason is None:
            return None
        while side // 2 >= _LEAST and _reason(components, name, side, side, most) is not None:
            side //= 2
        if max(height, width) <= most and not _possible(components, name, height, width, side):
            return None
        warnings.append(f"{name}: {reason}, so the image is cut into tiles of {side}x{side}; vae_tiling=off does not")
    if max(height, width) <= side:
        return None
    if not _possible(components, name, height, width, side):
        least = max(spec.axes[axis].min * config.factor for axis in ("h", "w"))
        raise UsageError(
            f"vae_tiling={setting}: tiles of {side} pixels, or what is left of them at the edges, are none that this "
            f"bundle's VAE takes ({least} to {most}, tiles in multiples of {4 * config.factor}); "
            f"export it again: {components.bundle.export_command('--vae-tiling', 'on')}"
        )
    return side


def _possible(components: Components, name: str, height: int, width: int, side: int) -> bool:
    """Whether the VAE takes tiles of that side, and the smaller ones at the edges."""
    config = components.bundle.autoencoder
    assert isinstance(config, VAEConfig)
    if side % (4 * config.factor):
        return False
    if name == "vae_encoder" and all(tensor.name != "moments" for tensor in components.spec(name).outputs):
        return False  # exported before there were tiles
    tiling = Tiling(input_side=side // config.factor, output_side=side)
    axes = components.spec(name).axes
    return all(
        axes[axis].min <= part.stop - part.start <= axes[axis].max
        for axis, length in (("h", height), ("w", width))
        for part in tiling.parts(length // config.factor)
    )


def _reason(components: Components, name: str, height: int, width: int, most: int) -> str | None:
    """Return why an image has to be cut into tiles, or None if it need not be."""
    if max(height, width) > most:
        return f"this bundle's VAE takes up to {most} pixels"
    with components.use(name) as (engine,):
        if ENGINES[engine.name].builds_plans:  # its memory was taken when it was opened
            return None
        device, precision = engine.device, engine.precision
    config = components.bundle.autoencoder
    assert isinstance(config, VAEConfig)
    needed = scratch_bytes(config, height, width, precision)
    if needed < 2**30:  # not worth asking
        return None
    try:
        gpu = device.startswith("cuda")
        free = free_memory(device_number(device.split()[0])) if gpu else free_host_memory()
    except (EngineError, UsageError):
        return None
    if free is None or needed <= _SHARE * free:
        return None
    return f"{width}x{height} would take about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"


def scratch_bytes(config: VAEConfig, height: int, width: int, precision: str) -> int:
    """Return an estimate of the memory that a VAE takes beside its weights.

    It is that of four arrays at full resolution with the channels of the second level. Measured with SDXL's decoder in
    float32 at 512x512 and 1024x1024: 4.2 kB for each pixel in ONNX Runtime, 2.5 kB in OpenVINO.
    """
    coarse = config.channels[min(1, len(config.channels) - 1)]
    return height * width * _BYTES[precision] * 4 * coarse
