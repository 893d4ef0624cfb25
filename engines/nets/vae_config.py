"""The VAE's configuration, read from diffusers' ``config.json`` and resolved once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError

__all__ = ["VAEConfig"]


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """A resolved VAE configuration.

    Attributes:
        factor: pixels per latent along each side.
        mean: per-channel shift of the latents.
        sample_size: pixels along each side that it was trained on; tiles are as large.
        std: per-channel scale of the latents; the UNet's latents are (z - mean) * scaling_factor / std.

    """

    channels: tuple[int, ...]
    latent: int
    layers: int
    groups: int
    attention: bool
    quant_conv: bool
    post_quant_conv: bool
    scaling_factor: float
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    force_upcast: bool
    sample_size: int

    @property
    def factor(self) -> int:
        """Pixels per latent along each side."""
        return 2 ** (len(self.channels) - 1)

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> "VAEConfig":
        """Resolve the contents of a ``config.json``.

        Raises:
            CheckpointError: an option has a value that this network does not implement.

        """
        fixed = {"act_fn": ("silu",), "in_channels": (3,), "out_channels": (3,), "shift_factor": (None, 0.0)}
        for option, allowed in fixed.items():
            if config.get(option, allowed[0]) not in allowed:
                raise CheckpointError(f"the VAE's {option}={config[option]!r} is not supported; {allowed[0]!r} is")
        for option, block in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
            if set(config.get(option, [block])) != {block}:
                raise CheckpointError(f"the VAE's {option}={config[option]!r} is not supported; {block} is")
        return cls(
            channels=tuple(config["block_out_channels"]),
            latent=config.get("latent_channels", 4),
            layers=config.get("layers_per_block", 1),
            groups=config.get("norm_num_groups", 32),
            attention=config.get("mid_block_add_attention", True),
            quant_conv=config.get("use_quant_conv", True),
            post_quant_conv=config.get("use_post_quant_conv", True),
            scaling_factor=config.get("scaling_factor", 0.18215),
            mean=tuple(config["latents_mean"]) if config.get("latents_mean") else None,
            std=tuple(config["latents_std"]) if config.get("latents_std") else None,
            force_upcast=config.get("force_upcast", True),
            sample_size=_side(config.get("sample_size", 32)),
        )


def _side(size: int | list[int]) -> int:
    """Return one side of a size that may have two, as diffusers does."""
    return size if isinstance(size, int) else size[0]
