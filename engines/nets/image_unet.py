"""The UNet that an image embedding conditions, as Kandinsky 2.2 has it (unCLIP's decoder, arXiv:2204.06125).

Its attention looks at a few tokens made of the embedding and at the map itself, in one softmax; time scales and shifts
behind the second norm of a residual block; maps are halved and doubled inside of residual blocks. Parameter names are
those of diffusers' ``UNet2DConditionModel``.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import KeyValues
from .conditioner import packed_key_values
from .config import LevelConfig, UNetConfig
from .layers import GroupNorm
from .unet import TwoLinear, time_sinusoid

__all__ = ["HintLatents", "ImageConditioner", "ImageUNet"]

_HINT_CHANNELS = (16, 16, 32, 32, 96, 96, 256)
"""Of the convolutions that embed a hint; every second halves the size. No config says otherwise."""


class ScaleShiftBlock(nn.Module):
    """A residual block that time scales and shifts, and that may halve or double the map.

    Args:
        config: of the UNet.
        channels_in: channels of the input.
        channels_out: channels of the output.
        halves: whether the output has half the height and width.

    """

    def __init__(self, config: UNetConfig, channels_in: int, channels_out: int, *, halves: bool = False) -> None:
        super().__init__()
        self.halves = halves
        self.norm1 = GroupNorm(config.groups, channels_in, eps=config.eps)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time_emb_proj = nn.Linear(config.embedding, 2 * channels_out)
        self.norm2 = GroupNorm(config.groups, channels_out, eps=config.eps)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.conv_shortcut = None if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor, like: Tensor | None = None) -> Tensor:
        """[R, C_in, h, w] and the SiLU of the time's embedding [R, E] -> [R, C_out, h', w'].

        With ``like`` the output has its height and width, which are doubled ones, or one less.
        """
        y = self.norm1(x, silu=True)
        if self.halves:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        elif like is not None:
            x, y = (F.interpolate(t, size=like.shape[-2:], mode="nearest") for t in (x, y))
        # Divided before the axes are added: OpenVINO 2026.4 crashes as it compiles the other order for known sizes.
        scale, shift = self.time_emb_proj(embedding).chunk(2, dim=1)
        y = self.norm2(self.conv1(y)) * (1.0 + scale)[:, :, None, None] + shift[:, :, None, None]
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + self.conv2(F.silu(y))


class AddedAttention(nn.Module):
    """Self-attention over the pixels of a map, which sees the embedding's tokens beside them."""

    def __init__(self, config: UNetConfig, level: LevelConfig) -> None:
        super().__init__()
        width = level.channels
        self.heads = level.heads
        self.group_norm = GroupNorm(config.groups, width, eps=1e-5)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.add_k_proj = nn.Linear(config.context, width)
        self.add_v_proj = nn.Linear(config.context, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, key_values: KeyValues) -> Tensor:
        """[R, C, h, w] -> [R, C, h, w]; takes one pair off ``key_values``, of the embedding's tokens."""
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)
        added_key, added_value = next(key_values)
        key = torch.cat([added_key, self.to_k(pixels)], 1)
        value = torch.cat([added_value, self.to_v(pixels)], 1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(pixels), key, value))
        y = self.to_out[0](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + y.transpose(1, 2).unflatten(-1, x.shape[-2:])


def _attentions(config: UNetConfig, level: LevelConfig) -> nn.ModuleList:
    return nn.ModuleList(AddedAttention(config, level) for _ in level.depths)


class DownBlock(nn.Module):
    """One level on the way down."""

    def __init__(self, config: UNetConfig, channels_in: int, level: LevelConfig, *, last: bool) -> None:
        super().__init__()
        c = level.channels
        self.resnets = nn.ModuleList(ScaleShiftBlock(config, c if i else channels_in, c) for i in range(level.layers))
        self.attentions = _attentions(config, level)
        self.downsamplers = nn.ModuleList([] if last else [ScaleShiftBlock(config, c, c, halves=True)])

    def forward(self, x: Tensor, embedding: Tensor, key_values: KeyValues) -> list[Tensor]:
        """Return every feature map it makes, the last being its output."""
        maps = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, embedding)
            if len(self.attentions):
                x = self.attentions[i](x, key_values)
            maps.append(x)
        for down in self.downsamplers:
            maps.append(down(maps[-1], embedding))
        return maps


class MidBlock(nn.Module):
    """The coarsest level: residual block, attention, residual block."""

    def __init__(self, config: UNetConfig, level: LevelConfig) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([AddedAttention(config, level)])
        self.resnets = nn.ModuleList(ScaleShiftBlock(config, level.channels, level.channels) for _ in range(2))

    def forward(self, x: Tensor, embedding: Tensor, key_values: KeyValues) -> Tensor:
        """[R, C, h, w] -> [R, C, h, w]."""
        x = self.attentions[0](self.resnets[0](x, embedding), key_values)
        return self.resnets[1](x, embedding)


class UpBlock(nn.Module):
    """One level on the way up; each residual block also takes a map of the way down."""

    def __init__(self, config: UNetConfig, channels_in: Sequence[int], level: LevelConfig, *, last: bool) -> None:
        super().__init__()
        c = level.channels
        self.resnets = nn.ModuleList(ScaleShiftBlock(config, n, c) for n in channels_in)
        self.attentions = _attentions(config, level)
        self.upsamplers = nn.ModuleList([] if last else [ScaleShiftBlock(config, c, c)])

    def forward(self, x: Tensor, skips: list[Tensor], embedding: Tensor, key_values: KeyValues) -> Tensor:
        """Take its maps off the end of ``skips``; an upsampler goes to the size of the next one left there."""
        for i, resnet in enumerate(self.resnets):
            x = resnet(torch.cat([x, skips.pop()], dim=1), embedding)
            if len(self.attentions):
                x = self.attentions[i](x, key_values)
        for up in self.upsamplers:
            x = up(x, embedding, like=skips[-1])
        return x


class ImageProjection(nn.Module):
    """Makes tokens of an image embedding."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.tokens = config.image_tokens
        self.image_embeds = nn.Linear(config.image, config.image_tokens * config.context)
        self.norm = nn.LayerNorm(config.context)

    def forward(self, embedding: Tensor) -> Tensor:
        """[R, image] -> [R, tokens, context]."""
        return self.norm(self.image_embeds(embedding).unflatten(1, (self.tokens, -1)))


class ImageTimeEmbedding(nn.Module):
    """What an image embedding adds to the time's; beside it, in a UNet that takes a hint, what embeds that."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.image_proj = nn.Linear(config.image, config.embedding)
        self.image_norm = nn.LayerNorm(config.embedding)
        if config.image_hint:
            self.input_hint_block = nn.Sequential(*_hint_layers(config.latent))

    def forward(self, embedding: Tensor) -> Tensor:
        """[R, image] -> [R, E]."""
        return self.image_norm(self.image_proj(embedding))


def _hint_layers(latent: int) -> Iterator[nn.Module]:
    channels = 3
    for i, following in enumerate(_HINT_CHANNELS):
        yield nn.Conv2d(channels, following, 3, padding=1, stride=2 if i in (2, 4, 6) else 1)
        yield nn.SiLU()
        channels = following
    yield nn.Conv2d(channels, latent, 3, padding=1)


class ImageUNet(nn.Module):
    """The network that predicts the noise; see :meth:`forward`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        base, coarsest = config.down[0].channels, config.down[-1]
        self.conv_in = nn.Conv2d(config.in_channels, base, 3, padding=1)
        self.time_embedding = TwoLinear(base, config.embedding)
        self.add_embedding = ImageTimeEmbedding(config)
        self.encoder_hid_proj = ImageProjection(config)
        inputs_down = (base, *(level.channels for level in config.down[:-1]))
        self.down_blocks = nn.ModuleList(
            DownBlock(config, channels, level, last=i == len(config.down) - 1)
            for i, (channels, level) in enumerate(zip(inputs_down, config.down, strict=True))
        )
        self.mid_block = MidBlock(config, coarsest)
        self.up_blocks = nn.ModuleList(
            UpBlock(config, inputs, level, last=i == len(config.up) - 1)
            for i, (inputs, level) in enumerate(zip(config.up_inputs(), config.up, strict=True))
        )
        self.conv_norm_out = GroupNorm(config.groups, base, eps=config.eps)
        self.conv_out = nn.Conv2d(base, config.out_channels, 3, padding=1)

    def cross_attentions(self) -> Iterator[AddedAttention]:
        """Attention layers in the order in which ``forward`` meets them."""
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            yield from block.attentions

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        key_values: Sequence[tuple[Tensor, Tensor]],
        *,
        embedding: Tensor,
        rows: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Predict, for R rows.

        Args:
            x: latents, and behind them what the network sees beside, [R, in_channels, h, w]; with ``rows``, [S, ...].
            timestep: [R].
            key_values: per attention layer, keys and values of the embedding's tokens, [R, tokens, width].
            embedding: what the image embedding adds to the time's, [R, E].
            rows: which sample each row belongs to, [R], and one row of each sample; None where x is by row.

        Returns:
            The prediction, [R, latent, h, w]; the variance that the network learned beside it is left out, as no
            scheduler of Kandinsky's asks for it.

        """
        sinusoid = time_sinusoid(self.config, timestep, self.conv_in.weight.dtype)
        e = F.silu(self.time_embedding(sinusoid) + embedding)
        x = self.conv_in(x if rows is None else x.index_select(0, rows[0]))
        kv, skips = iter(key_values), [x]
        for block in self.down_blocks:
            skips += block(skips[-1], e, kv)
        x = self.mid_block(skips[-1], e, kv)
        for block in self.up_blocks:
            x = block(x, skips, e, kv)
        return self.conv_out(self.conv_norm_out(x, silu=True))[:, : self.config.latent]


class ImageConditioner(nn.Module):
    """The component ``conditioner``: an image embedding's part of a UNet.

    Args:
        unet: the network whose weights it uses; nothing of its own.

    """

    def __init__(self, unet: ImageUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, image_embeds: Tensor) -> tuple[Tensor, ...]:
        """Prepare R rows.

        Args:
            image_embeds: float32 [R, image].

        Returns:
            Packed keys and values [R, L, 2, tokens, width], one tensor per distinct width; then ``embedding`` [R, E].

        """
        unet = self.unet
        given = image_embeds.to(unet.conv_in.weight.dtype)
        tokens = unet.encoder_hid_proj(given)
        pairs = [(layer.add_k_proj(tokens), layer.add_v_proj(tokens)) for layer in unet.cross_attentions()]
        return (*packed_key_values(unet, pairs), unet.add_embedding(given))


class HintLatents(nn.Module):
    """The component ``hint``: a hint, embedded as more channels beside the latents."""

    def __init__(self, unet: ImageUNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, image: Tensor) -> Tensor:
        """Pixels 0 to 1, float32 [S, H, W, 3] -> float32 [S, latent, h, w]."""
        pixels = image.permute(0, 3, 1, 2).to(self.unet.conv_in.weight.dtype)
        return self.unet.add_embedding.input_hint_block(pixels).float()
