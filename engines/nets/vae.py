"""The autoencoder between pixels and latents; parameter names are those of diffusers' ``AutoencoderKL``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import CheckpointError
from .attention import Attention
from .layers import Downsample, ResnetBlock, Upsample

__all__ = ["VAE", "VAEConfig", "VAEDecoder", "VAEEncoder"]

_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """A resolved VAE configuration.

    Attributes:
        factor: pixels per latent along each side.
        mean: per-channel shift of the latents.
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
        )


def _resnets(config: VAEConfig, channels_in: int, channels: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        ResnetBlock(channels if i else channels_in, channels, groups=config.groups, eps=_EPS, embedding=None)
        for i in range(count)
    )


class PixelAttention(Attention):
    """Self-attention of one head over all pixels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, 1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps=_EPS)

    def forward(self, x: Tensor, key_value: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        y = super().forward(self.group_norm(x).flatten(2).transpose(1, 2), key_value)
        return x + y.transpose(1, 2).unflatten(-1, x.shape[-2:])


class MidBlock(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels = config.channels[-1]
        self.attentions = nn.ModuleList([PixelAttention(channels, config.groups)] if config.attention else [])
        self.resnets = _resnets(config, channels, channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class Level(nn.Module):
    """Residual blocks of one resolution, and the resampling to the next."""

    def __init__(self, resnets: nn.ModuleList, name: str, resample: Sequence[nn.Module]) -> None:
        super().__init__()
        self.resnets = resnets
        self.resample = name
        self.add_module(name, nn.ModuleList(resample))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h', w']."""
        for layer in (*self.resnets, *self.get_submodule(self.resample).children()):
            x = layer(x)
        return x


class Encoder(nn.Module):
    """Pixels to the mean and log-variance of the latents."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels = config.channels
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(
                _resnets(config, channels[max(i - 1, 0)], c, config.layers),
                "downsamplers",
                [] if i == len(channels) - 1 else [Downsample(c, padding=0)],
            )
            for i, c in enumerate(channels)
        )
        self.mid_block = MidBlock(config)
        self.conv_norm_out = nn.GroupNorm(config.groups, channels[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 2 * latent, h, w]."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        channels = config.channels[::-1]
        self.conv_in = nn.Conv2d(config.latent, channels[0], 3, padding=1)
        self.mid_block = MidBlock(config)
        self.up_blocks = nn.ModuleList(
            Level(
                _resnets(config, channels[max(i - 1, 0)], c, config.layers + 1),
                "upsamplers",
                [] if i == len(channels) - 1 else [Upsample(c)],
            )
            for i, c in enumerate(channels)
        )
        self.conv_norm_out = nn.GroupNorm(config.groups, channels[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """[B, latent, h, w] -> [B, 3, H, W]."""
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VAE(nn.Module):
    """Both halves, with the 1x1 convolutions around the latents."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent, 2 * config.latent, 1) if config.quant_conv else None
        self.post_quant_conv = nn.Conv2d(config.latent, config.latent, 1) if config.post_quant_conv else None


def _affine(config: VAEConfig) -> tuple[Tensor, Tensor]:
    """Factor and shift from the UNet's latents to the VAE's, each [1, C, 1, 1]."""
    std = torch.tensor(config.std or (1.0,) * config.latent) / config.scaling_factor
    mean = torch.tensor(config.mean or (0.0,) * config.latent)
    return std[None, :, None, None], mean[None, :, None, None]


class VAEDecoder(nn.Module):
    """The component ``vae_decoder``."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        """Latents of the UNet, float32 [S, C, h, w] -> pixels 0 to 1, float32 [S, H, W, 3]."""
        config = self.vae.config
        if config.mean or config.std:
            factor, shift = _affine(config)
            latent = latent * factor + shift
        else:
            latent = latent / config.scaling_factor
        z = latent.to(self.vae.decoder.conv_in.weight.dtype)
        if self.vae.post_quant_conv is not None:
            z = self.vae.post_quant_conv(z)
        pixels = self.vae.decoder(z).float()
        return (pixels * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


class VAEEncoder(nn.Module):
    """The component ``vae_encoder``."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """Sample the latents of an image.

        Args:
            image: pixels 0 to 1, float32 [S, H, W, 3].
            noise: Gaussian noise, float32 [S, C, h, w]; zeros give the mean.

        Returns:
            Latents of the UNet, float32 [S, C, h, w].
        """
        pixels = image.permute(0, 3, 1, 2) * 2.0 - 1.0
        moments = self.vae.encoder(pixels.to(self.vae.encoder.conv_in.weight.dtype))
        if self.vae.quant_conv is not None:
            moments = self.vae.quant_conv(moments)
        mean, log_variance = moments.float().chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * noise
        config = self.vae.config
        if config.mean or config.std:
            factor, shift = _affine(config)
            return (z - shift) / factor
        return z * config.scaling_factor
