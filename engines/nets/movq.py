"""MoVQ (Zheng et al., 2022, arXiv:2209.09002): an autoencoder whose decoder sees the latents at every norm.

Parameter names are those of diffusers' ``VQModel``. Nothing is quantised: Kandinsky denoises what the encoder makes,
and decodes that as it is.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention
from .layers import Downsample, GroupNorm, ResnetBlock, Upsample
from .movq_config import SPATIAL_GROUPS, MoVQConfig
from .vae import PixelAttention, pixels_and_bytes

__all__ = ["MoVQ", "MoVQDecoder", "MoVQEncoder"]

_EPS = 1e-6


class SpatialNorm(nn.Module):
    """Group norm, scaled and shifted at each pixel by what the latent there says."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.norm_layer = nn.GroupNorm(SPATIAL_GROUPS, channels, eps=_EPS)
        self.conv_y = nn.Conv2d(latent, channels, 1)
        self.conv_b = nn.Conv2d(latent, channels, 1)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """[B, C, h', w'] and latents, at that size already, [B, latent, h', w'] -> [B, C, h', w']."""
        return self.norm_layer(x) * self.conv_y(latent) + self.conv_b(latent)


class SpatialResnetBlock(nn.Module):
    """Two 3x3 convolutions with spatial norm and SiLU."""

    def __init__(self, channels_in: int, channels_out: int, latent: int) -> None:
        super().__init__()
        self.norm1 = SpatialNorm(channels_in, latent)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.norm2 = SpatialNorm(channels_out, latent)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = None if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """[B, C_in, h', w'] and latents at that size -> [B, C_out, h', w']."""
        y = self.conv1(F.silu(self.norm1(x, latent)))
        y = self.conv2(F.silu(self.norm2(y, latent)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + y


class SpatialAttention(Attention):
    """Self-attention of one head over all pixels, behind a spatial norm."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__(channels, 1, bias=True)
        self.spatial_norm = SpatialNorm(channels, latent)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:  # type: ignore[override]  # as PixelAttention, with latents
        """[B, C, h', w'] and latents at that size -> [B, C, h', w']."""
        y = super().forward(self.spatial_norm(x, latent).flatten(2).transpose(1, 2))
        return x + y.transpose(1, 2).unflatten(-1, x.shape[-2:])


class DownLevel(nn.Module):
    """One level of the encoder: residual blocks, attention behind each where there is some, a downsampler."""

    def __init__(self, config: MoVQConfig, channels_in: int, channels: int, *, attention: bool, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(channels if i else channels_in, channels, groups=config.groups, eps=_EPS, embedding=None)
            for i in range(config.layers)
        )
        self.attentions = nn.ModuleList(PixelAttention(channels, config.groups) for _ in self.resnets if attention)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(channels, padding=0)])

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h', w']."""
        for i, resnet in enumerate(self.resnets):
            x = resnet(x)
            if len(self.attentions):
                x = self.attentions[i](x)
        for down in self.downsamplers:
            x = down(x)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, resnets: Sequence[nn.Module], attention: nn.Module) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([attention])
        self.resnets = nn.ModuleList(resnets)


class Encoder(nn.Module):
    """Pixels to latents."""

    def __init__(self, config: MoVQConfig) -> None:
        super().__init__()
        channels, last = config.channels, len(config.channels) - 1
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownLevel(config, channels[max(i - 1, 0)], c, attention=config.down[i], last=i == last)
            for i, c in enumerate(channels)
        )
        width = channels[-1]
        self.mid_block = Middle(
            [ResnetBlock(width, width, groups=config.groups, eps=_EPS, embedding=None) for _ in range(2)],
            PixelAttention(width, config.groups),
        )
        self.conv_norm_out = GroupNorm(config.groups, width, eps=_EPS)
        self.conv_out = nn.Conv2d(width, config.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, latent, h, w]."""
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        for layer in (self.mid_block.resnets[0], self.mid_block.attentions[0], self.mid_block.resnets[1]):
            x = layer(x)
        return self.conv_out(self.conv_norm_out(x, silu=True))


class UpLevel(nn.Module):
    """One level of the decoder: residual blocks, attention behind each where there is some, an upsampler."""

    def __init__(self, config: MoVQConfig, channels_in: int, channels: int, *, attention: bool, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            SpatialResnetBlock(channels if i else channels_in, channels, config.latent)
            for i in range(config.layers + 1)
        )
        self.attentions = nn.ModuleList(SpatialAttention(channels, config.latent) for _ in self.resnets if attention)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(channels)])

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """[B, C, h', w'] and latents at that size -> [B, C', h'', w'']."""
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, latent)
            if len(self.attentions):
                x = self.attentions[i](x, latent)
        for up in self.upsamplers:
            x = up(x)
        return x


class Decoder(nn.Module):
    """Latents to pixels."""

    def __init__(self, config: MoVQConfig) -> None:
        super().__init__()
        channels, last = config.channels[::-1], len(config.channels) - 1
        width, latent = channels[0], config.latent
        self.conv_in = nn.Conv2d(latent, width, 3, padding=1)
        self.mid_block = Middle(
            [SpatialResnetBlock(width, width, latent) for _ in range(2)], SpatialAttention(width, latent)
        )
        self.up_blocks = nn.ModuleList(
            UpLevel(config, channels[max(i - 1, 0)], c, attention=config.up[i], last=i == last)
            for i, c in enumerate(channels)
        )
        self.conv_norm_out = SpatialNorm(channels[-1], latent)
        self.conv_out = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, z: Tensor, latent: Tensor) -> Tensor:
        """Decode.

        Args:
            z: behind the first 1x1 convolution, [B, latent, h, w].
            latent: before it, [B, latent, h, w]; what the norms see.

        Returns:
            [B, 3, H, W].

        """
        x = self.mid_block.resnets[0](self.conv_in(z), latent)
        x = self.mid_block.attentions[0](x, latent)
        x = self.mid_block.resnets[1](x, latent)
        for i, block in enumerate(self.up_blocks):
            if i:  # the level before has doubled the size
                latent = F.interpolate(latent, scale_factor=2.0, mode="nearest")
            x = block(x, latent)
        return self.conv_out(F.silu(self.conv_norm_out(x, latent)))


class Codebook(nn.Module):
    """The vectors that latents can be quantised to: in every checkpoint, and of no use to decoding."""

    def __init__(self, config: MoVQConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.codes, config.latent)


class MoVQ(nn.Module):
    """Both halves, with the 1x1 convolutions around the latents."""

    def __init__(self, config: MoVQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(config.latent, config.latent, 1)
        self.quantize = Codebook(config)
        self.post_quant_conv = nn.Conv2d(config.latent, config.latent, 1)


class MoVQDecoder(nn.Module):
    """The component ``vae_decoder``."""

    def __init__(self, movq: MoVQ) -> None:
        super().__init__()
        self.movq = movq

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode float32 [S, C, h, w]; returns what :meth:`~sdengine.engines.nets.vae.VAEDecoder.forward` does."""
        latent = latent.to(self.movq.decoder.conv_in.weight.dtype)
        return pixels_and_bytes(self.movq.decoder(self.movq.post_quant_conv(latent), latent))


class MoVQEncoder(nn.Module):
    """The component ``vae_encoder``."""

    def __init__(self, movq: MoVQ) -> None:
        super().__init__()
        self.movq = movq

    def forward(self, image: Tensor) -> Tensor:
        """Pixels 0 to 1, float32 [S, H, W, 3] -> latents, float32 [S, C, h, w]; there is nothing random in them."""
        pixels = image.permute(0, 3, 1, 2) * 2.0 - 1.0
        return self.movq.quant_conv(self.movq.encoder(pixels.to(self.movq.encoder.conv_in.weight.dtype))).float()
