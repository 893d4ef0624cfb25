"""Attention and the transformer blocks of the UNet and the ControlNet."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import GroupNorm

__all__ = ["GEGLU", "Attention", "FeedForward", "KeyValues", "Transformer2D", "TransformerBlock"]

KeyValues = Iterator[tuple[Tensor, Tensor]]
"""Keys and values [R, T, width] of the cross-attention layers, in the order in which the network meets them."""


class Attention(nn.Module):
    """Multi-head attention; keys and values come from the input itself or, ready made, from the conditioner.

    Args:
        width: features of the input.
        heads: number of heads.
        context: features of the text that the keys and values are projected from; None for self-attention.
        bias: whether the projections of queries, keys and values have a bias.
        upcast: multiply queries and keys in float32, as checkpoints with ``upcast_attention`` need in float16.

    """

    def __init__(
        self, width: int, heads: int, *, context: int | None = None, bias: bool = False, upcast: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.upcast = upcast
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k = nn.Linear(context or width, width, bias=bias)
        self.to_v = nn.Linear(context or width, width, bias=bias)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.to_qkv: nn.Linear | None = None

    def forward(self, x: Tensor, key_value: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """[B, N, width] and, for cross-attention, keys and values [B, T, width] -> [B, N, width]."""
        if self.to_qkv is not None:
            query, key, value = self.to_qkv(x).chunk(3, dim=-1)
        else:
            query = self.to_q(x)
            key, value = (self.to_k(x), self.to_v(x)) if key_value is None else key_value
        q, k, v = (self._split(t) for t in (query, key, value))
        if self.upcast:
            q, k, v = q.float(), k.float(), v.float()
        y = F.scaled_dot_product_attention(q, k, v)
        return self.to_out[0](y.to(x.dtype).transpose(1, 2).flatten(2))

    def fuse(self) -> None:
        """Make one product of the three of self-attention: on a GPU, three small ones leave part of it idle.

        For modules that are run as they are. Traced ones keep the checkpoint's names.
        """
        parts = [self.to_q, self.to_k, self.to_v]
        weight = torch.cat([part.weight for part in parts])
        fused = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        fused.weight = nn.Parameter(weight, requires_grad=False)
        if self.to_q.bias is not None:
            fused.bias = nn.Parameter(torch.cat([part.bias for part in parts]), requires_grad=False)
        self.to_qkv = fused
        del self.to_q, self.to_k, self.to_v

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class GEGLU(nn.Module):
    """Gated linear unit with GELU (Shazeer, 2020, arXiv:2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, width] -> [B, N, inner]."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class GELU(nn.Module):
    """A linear layer and GELU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, width] -> [B, N, inner]."""
        return F.gelu(self.proj(x))


class FeedForward(nn.Module):
    """To four times the width, with GEGLU or GELU alone, and back."""

    def __init__(self, width: int, *, gated: bool = True) -> None:
        super().__init__()
        first = (GEGLU if gated else GELU)(width, 4 * width)
        # The identity stands where diffusers has a dropout, so that the names agree.
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(4 * width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, width] -> [B, N, width]."""
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each after a layer norm and with a residual."""

    def __init__(self, width: int, heads: int, context: int, *, upcast: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads, upcast=upcast)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads, context=context, upcast=upcast)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, key_values: KeyValues, row_sample: Tensor | None = None) -> Tensor:
        """[B, N, width] -> [B, N, width]; takes one pair off ``key_values``.

        With ``row_sample`` [R], B are samples until the text makes their rows differ; then they are R rows.
        """
        x = x + self.attn1(self.norm1(x))
        if row_sample is not None:
            x = x.index_select(0, row_sample)
        x = x + self.attn2(self.norm2(x), next(key_values))
        return x + self.ff(self.norm3(x))


class Transformer2D(nn.Module):
    """Transformer blocks over the pixels of a feature map.

    Args:
        width: channels of the map.
        heads: attention heads.
        context: features of the text.
        depth: number of blocks.
        linear: project in and out with linear layers (SD 2, SDXL) rather than 1x1 convolutions (SD 1).
        groups: groups of the norm.
        upcast: see :class:`Attention`.

    """

    def __init__(
        self, width: int, heads: int, context: int, *, depth: int, linear: bool, groups: int, upcast: bool
    ) -> None:
        super().__init__()
        self.linear = linear
        self.norm = GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(width, heads, context, upcast=upcast) for _ in range(depth)
        )
        self.proj_out = nn.Linear(width, width) if linear else nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, key_values: KeyValues, row_sample: Tensor | None = None) -> Tensor:
        """[B, width, h, w] -> [B, width, h, w], or [R, width, h, w]; see :meth:`TransformerBlock.forward`."""
        size = x.shape[-2:]
        y = self.norm(x)
        if not self.linear:
            y = self.proj_in(y)
        y = y.flatten(2).transpose(1, 2)
        if self.linear:
            y = self.proj_in(y)
        for i, block in enumerate(self.transformer_blocks):
            y = block(y, key_values, None if i else row_sample)
        if self.linear:
            y = self.proj_out(y)
        y = y.transpose(1, 2).unflatten(-1, size)
        if not self.linear:
            y = self.proj_out(y)
        return (x if row_sample is None else x.index_select(0, row_sample)) + y
