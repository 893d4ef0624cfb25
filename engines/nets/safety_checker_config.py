"""A safety checker's configuration, read from transformers' ``config.json`` and resolved once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .image_encoder_config import ImageEncoderConfig

__all__ = ["CONCEPTS", "SPECIAL_CONCEPTS", "SafetyCheckerConfig"]

CONCEPTS, SPECIAL_CONCEPTS = 17, 3
"""Embeddings that an image is compared with: fixed in the code of ``StableDiffusionSafetyChecker``, in no config."""


@dataclass(frozen=True, kw_only=True)
class SafetyCheckerConfig:
    """A resolved configuration of diffusers' ``StableDiffusionSafetyChecker``.

    Attributes:
        encoder: of the vision transformer that embeds the image.

    """

    encoder: ImageEncoderConfig

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any]) -> "SafetyCheckerConfig":
        """Resolve the configuration of its vision transformer, with the width of its embedding (``projection_dim``).

        Raises:
            CheckpointError: an option has a value that this network does not implement.

        """
        return cls(encoder=ImageEncoderConfig.from_transformers(config))
