"""The autoencoder between pixels and latents; parameter names are those of diffusers' ``AutoencoderKL``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import Attention
from .layers import Downsample, GroupNorm, ResnetBlock, Upsample
from .vae_config import VAEConfig

__all__ = ["VAE", "PixelAttention", "VAEDecoder", "VAEEncoder", "pixels_and_bytes"]

_EPS = 1e-6


def _resnets(config: VAEConfig, channels_in: int, channels: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        ResnetBlock(channels if i else channels_in, channels, groups=config.groups, eps=_EPS, embedding=None)
        for i in range(count)
    )


class PixelAttention(Attention):
    """Self-attention of one head over all pixels."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__(channels, 1, bias=True)
        self.group_norm = GroupNorm(groups, channels, eps=_EPS)

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
        self.conv_norm_out = GroupNorm(config.groups, channels[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(channels[-1], 2 * config.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 2 * latent, h, w]."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(self.conv_norm_out(self.mid_block(x), silu=True))


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
        self.conv_norm_out = GroupNorm(config.groups, channels[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """[B, latent, h, w] -> [B, 3, H, W]."""
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(self.conv_norm_out(x, silu=True))


class VAE(nn.Module):
    """Both halves, with the 1x1 convolutions around the latents."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent, 2 * config.latent, 1) if config.quant_conv else None
        self.post_quant_conv = nn.Conv2d(config.latent, config.latent, 1) if config.post_quant_conv else None


def _per_channel(values: Sequence[float], device: torch.device) -> Tensor:
    """[C] numbers -> [1, C, 1, 1]; filled, not copied, because tracing under fake tensors loses copied data."""
    return torch.stack([torch.full((1, 1, 1), value, device=device) for value in values], dim=1)


def _affine(config: VAEConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and shift from the UNet's latents to the VAE's, each [1, C, 1, 1]."""
    std = config.std or (1.0,) * config.latent
    mean = config.mean or (0.0,) * config.latent
    return _per_channel([s / config.scaling_factor for s in std], device), _per_channel(mean, device)


def pixels_and_bytes(decoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[S, 3, H, W] around 0 -> what :meth:`VAEDecoder.forward` returns."""
    pixels = decoded.float()
    image = (pixels * 0.5 + 0.5).permute(0, 2, 3, 1)
    return image, (image.clamp(0, 1) * 255).round().to(torch.uint8), pixels.abs().mean((1, 2, 3))


class VAEDecoder(nn.Module):
    """The component ``vae_decoder``."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode latents of the UNet, float32 [S, C, h, w].

        Returns:
            Pixels, float32 [S, H, W, 3], of which 0 to 1 can be seen (tiles are blended before they are clamped); the
            same as bytes, uint8 [S, H, W, 3]; and the mean magnitude, float32 [S], which is not finite where any pixel
            was not: clamping may hide that.

        """
        config = self.vae.config
        if config.mean or config.std:
            factor, shift = _affine(config, latent.device)
            latent = latent * factor + shift
        else:
            latent = latent / config.scaling_factor
        z = latent.to(self.vae.decoder.conv_in.weight.dtype)
        if self.vae.post_quant_conv is not None:
            z = self.vae.post_quant_conv(z)
        return pixels_and_bytes(self.vae.decoder(z))


class VAEEncoder(nn.Module):
    """The component ``vae_encoder``."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, image: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Sample the latents of an image.

        Args:
            image: pixels 0 to 1, float32 [S, H, W, 3].
            noise: Gaussian noise, float32 [S, C, h, w]; zeros give the mean.

        Returns:
            Latents of the UNet, float32 [S, C, h, w]; and what they are sampled from, before they are scaled: mean and
            log-variance, float32 [S, 2 C, h, w]. Those are what tiles are blended of.

        """
        pixels = image.permute(0, 3, 1, 2) * 2.0 - 1.0
        moments = self.vae.encoder(pixels.to(self.vae.encoder.conv_in.weight.dtype))
        if self.vae.quant_conv is not None:
            moments = self.vae.quant_conv(moments)
        moments = moments.float()
        mean, log_variance = moments.chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance.clamp(-30.0, 20.0)) * noise
        config = self.vae.config
        if config.mean or config.std:
            factor, shift = _affine(config, z.device)
            return (z - shift) / factor, moments
        return z * config.scaling_factor, moments
