"""CLIP's text transformer (Radford et al., 2021, arXiv:2103.00020), OpenCLIP's weights included.

Parameter names are those of transformers' ``CLIPTextModel`` and ``CLIPTextModelWithProjection``; transformers is the
oracle of its tests. Written here because a graph should read any hidden layer and take embeddings of textual
inversion.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clip import LayerConfig, Layers
from .text_config import TextEncoderConfig

__all__ = ["TextEncoder"]


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


class TextModel(nn.Module):
    """Embeddings, layers and final norm."""

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        layer = LayerConfig(
            width=config.width, inner=config.inner, heads=config.heads, activation=config.activation, eps=config.eps
        )
        self.encoder = Layers(layer, config.layers)
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
