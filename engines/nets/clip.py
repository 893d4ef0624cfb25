"""The transformer that CLIP's text and image encoders are made of (Radford et al., 2021, arXiv:2103.00020)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Layer", "LayerConfig", "Layers"]


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """Dimensions of a layer.

    Attributes:
        width: features of a token.
        inner: features between the two products of the MLP.
        heads: attention heads.
        activation: ``gelu``, or ``quick_gelu``, CLIP's approximation of it.
        eps: epsilon of the layer norms.

    """

    width: int
    inner: int
    heads: int
    activation: str
    eps: float


class SelfAttention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """[B, T, width] and what is added to the scores, [B, 1, T, T] or nothing -> [B, T, width]."""
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Linear, GELU (or CLIP's fast approximation of it), linear."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.quick = config.activation == "quick_gelu"
        self.fc1 = nn.Linear(config.width, config.inner)
        self.fc2 = nn.Linear(config.inner, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, width] -> [B, T, width]."""
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x) if self.quick else F.gelu(x))


class Layer(nn.Module):
    """Attention and MLP, each after a layer norm and with a residual."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.width, config.heads)
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.eps)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[B, T, width] and what is added to the scores, [B, 1, T, T] or nothing -> [B, T, width]."""
        x = x + self.self_attn(self.layer_norm1(x), bias)
        return x + self.mlp(self.layer_norm2(x))


class Layers(nn.Module):
    """The layers, under the name that transformers gives them."""

    def __init__(self, config: LayerConfig, count: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(count))
