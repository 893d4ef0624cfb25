"""CLIP's vision transformer with its projection (Radford et al., 2021, arXiv:2103.00020), OpenCLIP's weights included.

Parameter names are those of transformers' ``CLIPVisionModelWithProjection``, which is the oracle of its tests.
"""

import torch
from torch import Tensor, nn

from .clip import LayerConfig, Layers
from .image_encoder_config import ImageEncoderConfig

__all__ = ["ImageEncoder", "VisionModel"]


class Embeddings(nn.Module):
    """Patches and positions, and the token that stands for the whole image."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(config.width))
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.position_embedding = nn.Embedding(config.tokens, config.width)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, size, size] -> [B, T, width]."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        # Padding makes room for the first token: one copy of it for each image would need their number.
        tokens = nn.functional.pad(patches, (0, 0, 1, 0))
        position = self.position_embedding.weight
        first = nn.functional.pad(self.class_embedding[None], (0, 0, 0, position.shape[0] - 1))
        return tokens + (position + first)[None]


class VisionModel(nn.Module):
    """Embeddings, layers, and the norms before and behind them."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width, eps=config.eps)  # transformers' spelling
        layer = LayerConfig(
            width=config.width, inner=config.inner, heads=config.heads, activation=config.activation, eps=config.eps
        )
        self.encoder = Layers(layer, config.layers)
        self.post_layernorm = nn.LayerNorm(config.width, eps=config.eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, size, size, 3] -> [B, width], the token that stands for the whole image."""
        x = self.embeddings(pixels.permute(0, 3, 1, 2).to(self.post_layernorm.weight.dtype))
        x = self.pre_layrnorm(x)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x[:, 0])


class ImageEncoder(nn.Module):
    """The component ``image_encoder``."""

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionModel(config)
        self.visual_projection = nn.Linear(config.width, config.projection, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed images.

        Args:
            pixels: with CLIP's mean and deviation taken out, float32 [B, size, size, 3].

        Returns:
            Their embeddings, float32 [B, projection].

        """
        return self.visual_projection(self.vision_model(pixels)).float()
