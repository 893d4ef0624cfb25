"""Residual blocks and resampling, shared by the UNet, the ControlNet and the VAE."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Downsample", "GroupNorm", "ResnetBlock", "Upsample"]


class GroupNorm(nn.GroupNorm):
    """torch's, which also applies the SiLU that often follows, so that one kernel can do both."""

    def forward(self, x: Tensor, *, silu: bool = False) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        y = super().forward(x)
        return F.silu(y) if silu else y


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions with group norm and SiLU, and the time embedding added between them.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        groups: groups of both norms.
        eps: epsilon of both norms.
        embedding: width of the time embedding; None where there is no time (the VAE).

    """

    def __init__(self, channels_in: int, channels_out: int, *, groups: int, eps: float, embedding: int | None) -> None:
        super().__init__()
        self.norm1 = GroupNorm(groups, channels_in, eps=eps)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time_emb_proj = None if embedding is None else nn.Linear(embedding, channels_out)
        self.norm2 = GroupNorm(groups, channels_out, eps=eps)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = None if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """[B, C_in, h, w] and, with time, the SiLU of its embedding [B, E] -> [B, C_out, h, w]."""
        y = self.conv1(self.norm1(x, silu=True))
        if self.time_emb_proj is not None:
            assert embedding is not None
            y = y + self.time_emb_proj(embedding)[:, :, None, None]
        y = self.conv2(self.norm2(y, silu=True))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + y


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2; the VAE pads right and below only (``padding`` 0)."""

    def __init__(self, channels: int, *, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, ceil(h/2), ceil(w/2)] (the VAE: floor)."""
        return self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour interpolation, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, like: Tensor | None = None) -> Tensor:
        """[B, C, h, w] -> the height and width of ``like``, which an odd size needs, else twice the input's."""
        if like is None:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return self.conv(F.interpolate(x, size=like.shape[-2:], mode="nearest"))


def timestep_sinusoid(t: Tensor, width: int, *, flip_sin_to_cos: bool, freq_shift: float) -> Tensor:
    """Sinusoidal embedding of Vaswani et al., 2017 (arXiv:1706.03762), [B] -> [B, width], in float32.

    Args:
        t: timesteps, or any scalar condition.
        width: even number of features.
        flip_sin_to_cos: cosines first.
        freq_shift: subtracted from the number of frequencies in the exponent's denominator.

    """
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=t.device) * (-9.210340371976184 / (half - freq_shift))
    angle = t.to(torch.float32)[:, None] * torch.exp(exponent)[None, :]
    parts = (torch.cos(angle), torch.sin(angle)) if flip_sin_to_cos else (torch.sin(angle), torch.cos(angle))
    return torch.cat(parts, dim=-1)
