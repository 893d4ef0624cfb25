"""CLIP's text transformer (Radford et al., 2021, arXiv:2103.00020), OpenCLIP's weights included.

Parameter names are those of transformers' ``CLIPTextModel`` and ``CLIPTextModelWithProjection``; transformers is the
oracle of its tests. Written here because a graph should read any hidden layer and take embeddings of textual
inversion.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .text_config import TextEncoderConfig

__all__ = ["TextEncoder"]


class SelfAttention(nn.Module):
    """Multi-head attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, T, width] and what is added to the scores, [B, 1, T, T] -> [B, T, width]."""
        q, k, v = (
            p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out_proj(y.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    """Linear, GELU (or CLIP's fast approximation of it), linear."""

    def __init__(self, config: TextEncoderConfig) -> None:
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

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.self_attn = SelfAttention(config.width, config.heads)
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = MLP(config)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """[B, T, width] and what is added to the scores, [B, 1, T, T] -> [B, T, width]."""
        x = x + self.self_attn(self.layer_norm1(x), bias)
        return x + self.mlp(self.layer_norm2(x))


class Embeddings(nn.Module):
    """Tokens and positions."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.tokens, config.width)

    def forward(self, input_ids: Tensor, extra: Tensor) -> Tensor:
        """[B, T] -> [B, T, width]; an id behind the vocabulary picks a row of ``extra`` [E, width]."""
        known = self.token_embedding.num_embeddings
        table = self.token_embedding(input_ids.clamp(max=known - 1))
        added = F.embedding((input_ids - known).clamp(min=0), extra)
        tokens = torch.where((input_ids >= known)[:, :, None], added, table)
        return tokens + self.position_embedding.weight[None]


class Layers(nn.Module):
    """The layers, under the name that transformers gives them."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))


class TextModel(nn.Module):
    """Embeddings, layers and final norm."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = Layers(config)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=config.eps)


def _attention_bias(attention_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to the scores so that a token sees itself and earlier ones that are not hidden, [B, 1, T, T]."""
    place = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    seen = (place[None, :] <= place[:, None])[None, None] & (attention_mask != 0)[:, None, None, :]
    return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)


class TextEncoder(nn.Module):
    """The components ``text_encoder`` and ``text_encoder_2``."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextModel(config)
        self.text_projection = (
            None if config.projection is None else nn.Linear(config.width, config.projection, bias=False)
        )

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, layer: Tensor, extra_embeddings: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Encode B prompts of 77 tokens.

        Args:
            input_ids: int64 [B, T].
            attention_mask: int64 [B, T]; 0 hides a token from the others.
            layer: int64 [1], which hidden layer to return: 0 is the embeddings, ``layers`` the last.
            extra_embeddings: float32 [E, width], rows for the ids behind the vocabulary (textual inversion).

        Returns:
            The hidden layer, float32 [B, T, width], and the pooled text, float32 [B, P].

        """
        model = self.text_model
        x = model.embeddings(input_ids, extra_embeddings.to(model.final_layer_norm.weight.dtype))
        bias = _attention_bias(attention_mask, x.dtype)
        hidden = [x]
        for block in model.encoder.layers:
            hidden.append(block(hidden[-1], bias))
        chosen = torch.stack(hidden).index_select(0, layer)[0]
        if self.config.final_norm:
            chosen = model.final_layer_norm(chosen)
        marks = input_ids if self.config.eos == 2 else (input_ids == self.config.eos).to(torch.int32)
        place = marks.argmax(dim=-1)[:, None, None].expand(-1, 1, self.config.width)
        pooled = model.final_layer_norm(hidden[-1]).gather(1, place)[:, 0]
        if self.text_projection is not None:
            pooled = self.text_projection(pooled)
        return chosen.float(), pooled.float()
