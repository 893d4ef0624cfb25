"""diffusers' safety checker of Stable Diffusion: an image's embedding, compared with those of concepts.

Parameter names are those of published files of ``StableDiffusionSafetyChecker``, which is the oracle of its tests.
"""

import torch
from torch import Tensor, nn

from .image_encoder import VisionModel
from .safety_checker_config import CONCEPTS, SPECIAL_CONCEPTS, SafetyCheckerConfig

__all__ = ["SafetyChecker"]


class _VisionTower(nn.Module):
    def __init__(self, config: SafetyCheckerConfig) -> None:
        super().__init__()
        self.vision_model = VisionModel(config.encoder)


class SafetyChecker(nn.Module):
    """The component ``safety_checker``."""

    def __init__(self, config: SafetyCheckerConfig) -> None:
        super().__init__()
        width = config.encoder.projection
        self.vision_model = _VisionTower(config)
        self.visual_projection = nn.Linear(config.encoder.width, width, bias=False)
        self.special_care_embeds = nn.Parameter(torch.ones(SPECIAL_CONCEPTS, width))
        self.special_care_embeds_weights = nn.Parameter(torch.ones(SPECIAL_CONCEPTS))
        self.concept_embeds = nn.Parameter(torch.ones(CONCEPTS, width))
        self.concept_embeds_weights = nn.Parameter(torch.ones(CONCEPTS))

    def forward(self, pixels: Tensor) -> Tensor:
        """Compare images with concepts; from the embedding on in float32, whatever the precision.

        Args:
            pixels: with CLIP's mean and deviation taken out, float32 [B, size, size, 3].

        Returns:
            Cosine less threshold of each concept, those of special care first, float32 [B, 3 + 17].

        """
        embeds = self.visual_projection(self.vision_model.vision_model(pixels)).float()
        concepts = torch.cat([self.special_care_embeds, self.concept_embeds]).float()
        thresholds = torch.cat([self.special_care_embeds_weights, self.concept_embeds_weights]).float()
        return nn.functional.linear(_unit(embeds), _unit(concepts)) - thresholds[None]


def _unit(vectors: Tensor) -> Tensor:
    """Divide by the length, at least 1e-12, as ``torch.nn.functional.normalize`` does."""
    return vectors / (vectors * vectors).sum(-1, keepdim=True).sqrt().clamp(min=1e-12)
