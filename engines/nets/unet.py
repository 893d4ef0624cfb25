"""The UNet of Stable Diffusion (Rombach et al., 2022, arXiv:2112.10752) and SDXL (arXiv:2307.01952).

It takes what the conditioner has prepared, keys, values and the request's part of the embedding, and the
feature maps that ControlNets add. Parameter names are those of diffusers' ``UNet2DConditionModel``.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention, KeyValues, Transformer2D
from .config import LevelConfig, UNetConfig
from .layers import Downsample, GroupNorm, ResnetBlock, Upsample, timestep_sinusoid

__all__ = ["DownPath", "TwoLinear", "UNet", "time_sinusoid"]


class TwoLinear(nn.Module):
    """Linear, SiLU, linear: the embedding of time, and of text and sizes."""

    def __init__(self, width_in: int, width: int, *, width_out: int | None = None, offset: int | None = None) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width)
        self.cond_proj = None if offset is None else nn.Linear(offset, width_in, bias=False)
        self.linear_2 = nn.Linear(width, width_out or width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, width_in] -> [B, width_out], which is the width where it is not given."""
        return self.linear_2(F.silu(self.linear_1(x)))


def time_sinusoid(config: UNetConfig, timestep: Tensor, dtype: torch.dtype) -> Tensor:
    """Timesteps [R] -> what their embedding is made of, [R, base channels]."""
    return timestep_sinusoid(
        timestep,
        config.down[0].channels,
        flip_sin_to_cos=config.flip_sin_to_cos,
        freq_shift=config.freq_shift,
    ).to(dtype)


def _transformer(config: UNetConfig, level: LevelConfig, depth: int) -> Transformer2D:
    return Transformer2D(
        level.channels,
        level.heads,
        config.context,
        depth=depth,
        linear=config.linear,
        groups=config.groups,
        upcast=config.upcast,
    )


def _resnet(config: UNetConfig, channels_in: int, channels_out: int) -> ResnetBlock:
    return ResnetBlock(channels_in, channels_out, groups=config.groups, eps=config.eps, embedding=config.embedding)


class SharedStart(NamedTuple):
    """What the beginning of the network needs to run by sample: until the text comes in, a sample's rows are alike."""

    row_sample: Tensor
    """[R], which sample a row belongs to"""
    embedding: Tensor
    """[S, E], of each sample's time"""


class DownBlock(nn.Module):
    """One level on the way down: residual blocks, transformers behind them, a downsampler at the end."""

    def __init__(self, config: UNetConfig, channels_in: int, level: LevelConfig, *, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            _resnet(config, level.channels if i else channels_in, level.channels) for i in range(level.layers)
        )
        self.attentions = nn.ModuleList(_transformer(config, level, depth) for depth in level.depths)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(level.channels)])

    def forward(
        self, x: Tensor, embedding: Tensor, key_values: KeyValues, shared: "SharedStart | None" = None
    ) -> list[Tensor]:
        """Return every feature map it makes, the last being its output; with ``shared``, x is by sample."""
        maps = []
        for i, resnet in enumerate(self.resnets):
            first = shared if i == 0 else None
            x = resnet(x, embedding if first is None else first.embedding)
            if len(self.attentions):
                x = self.attentions[i](x, key_values, None if first is None else first.row_sample)
            maps.append(x)
        for down in self.downsamplers:
            maps.append(down(maps[-1]))
        return maps


class MidBlock(nn.Module):
    """The coarsest level: a residual block, then pairs of transformer and residual block."""

    def __init__(self, config: UNetConfig, level: LevelConfig, depth: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([_transformer(config, level, depth)])
        self.resnets = nn.ModuleList(_resnet(config, level.channels, level.channels) for _ in range(2))

    def forward(self, x: Tensor, embedding: Tensor, key_values: KeyValues) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]."""
        x = self.resnets[0](x, embedding)
        return self.resnets[1](self.attentions[0](x, key_values), embedding)


class UpBlock(nn.Module):
    """One level on the way up; each residual block also takes a map of the way down."""

    def __init__(self, config: UNetConfig, channels_in: Sequence[int], level: LevelConfig, *, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(_resnet(config, c, level.channels) for c in channels_in)
        self.attentions = nn.ModuleList(_transformer(config, level, depth) for depth in level.depths)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(level.channels)])

    def forward(self, x: Tensor, skips: list[Tensor], embedding: Tensor, key_values: KeyValues) -> Tensor:
        """Take its maps off the end of ``skips``; an upsampler goes to the size of the next one left there."""
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), embedding)
            if len(self.attentions):
                x = self.attentions[i](x, key_values)
        for up in self.upsamplers:
            x = up(x, like=skips[-1])
        return x


class DownPath(nn.Module):
    """What UNet and ControlNet share: the embeddings, the way down and the middle."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        base, width = config.down[0].channels, config.embedding
        self.conv_in = nn.Conv2d(config.in_channels, base, 3, padding=1)
        self.time_embedding = TwoLinear(base, width, offset=config.guidance_width)
        if config.time_ids:
            self.add_embedding = TwoLinear(config.pooled + config.time_ids * config.time_id_width, width)
        blocks = []
        channels = base
        for i, level in enumerate(config.down):
            blocks.append(DownBlock(config, channels, level, last=i == len(config.down) - 1))
            channels = level.channels
        self.down_blocks = nn.ModuleList(blocks)
        self.mid_block = None
        if config.mid_depth is not None:
            self.mid_block = MidBlock(config, config.down[-1], config.mid_depth)

    def embed_time(self, timestep: Tensor, embedding: Tensor | None, offset: Tensor | None) -> Tensor:
        """SiLU of the whole embedding, [R, E].

        Args:
            timestep: [R].
            embedding: the request's part, [R, E]; None where the family has none.
            offset: the distilled guidance's part, [R, base channels], or None.

        """
        x = time_sinusoid(self.config, timestep, self.conv_in.weight.dtype)
        time = self.time_embedding(x if offset is None else x + offset)
        return F.silu(time if embedding is None else time + embedding)

    def descend(
        self, x: Tensor, embedding: Tensor, key_values: KeyValues, shared: SharedStart | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Return the maps of the way down, and the middle's output, all by row; with ``shared``, x is by sample."""
        maps = [x if shared is None else x.index_select(0, shared.row_sample)]
        for i, block in enumerate(self.down_blocks):
            maps += block(x, embedding, key_values, None if i else shared)
            x = maps[-1]
        middle = maps[-1] if self.mid_block is None else self.mid_block(maps[-1], embedding, key_values)
        return maps, middle

    def cross_attentions(self) -> Iterator[Attention]:
        """Cross-attention layers in the order in which ``forward`` meets them."""
        for block in (*self.down_blocks, self.mid_block, *getattr(self, "up_blocks", ())):
            for transformer in block.attentions if block is not None else ():
                for layer in transformer.transformer_blocks:
                    yield layer.attn2


class UNet(DownPath):
    """The network that predicts the noise; see :meth:`forward`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        blocks = [
            UpBlock(config, inputs, level, last=i == len(config.up) - 1)
            for i, (inputs, level) in enumerate(zip(config.up_inputs(), config.up, strict=True))
        ]
        self.up_blocks = nn.ModuleList(blocks)
        base = config.down[0].channels
        self.conv_norm_out = GroupNorm(config.groups, base, eps=config.eps)
        self.conv_out = nn.Conv2d(base, config.out_channels, 3, padding=1)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        key_values: Sequence[tuple[Tensor, Tensor]],
        *,
        embedding: Tensor | None = None,
        offset: Tensor | None = None,
        residuals: Sequence[Tensor] = (),
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Predict, for R rows.

        Args:
            x: scaled latents (and, for inpainting UNets, mask and masked latents), [R, in_channels, h, w]; with
                ``rows``, [S, in_channels, h, w].
            timestep: [R]; of equal numbers for the rows of one sample.
            key_values: per cross-attention layer, keys and values [R, T, width].
            embedding: pooled text and sizes, embedded, [R, E]; None where the family has none.
            offset: distilled guidance, embedded, [R, base channels], or None.
            residuals: what ControlNets add to each map of the way down and to the middle, or nothing.
            rows: which sample each row belongs to, [R], and one row of each sample, [S]: what does not depend on the
                text is then computed once for a sample's rows. None where x is by row.

        Returns:
            The prediction, [R, out_channels, h, w].

        """
        e = self.embed_time(timestep, embedding, offset)
        kv = iter(key_values)
        shared = None
        if rows is not None and embedding is None and self.config.down[0].depths:
            shared = SharedStart(rows[0], e.index_select(0, rows[1]))
        elif rows is not None:
            x = x.index_select(0, rows[0])
        skips, x = self.descend(self.conv_in(x), e, kv, shared)
        if residuals:
            skips = [skip + r.to(skip.dtype) for skip, r in zip(skips, residuals[:-1], strict=True)]
            x = x + residuals[-1].to(x.dtype)
        for block in self.up_blocks:
            x = block(x, skips, e, kv)
        return self.conv_out(self.conv_norm_out(x, silu=True))
