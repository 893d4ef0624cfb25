"""An image encoder's configuration, read from transformers' ``config.json`` and resolved once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError

__all__ = ["ImageEncoderConfig"]


@dataclass(frozen=True, kw_only=True)
class ImageEncoderConfig:
    """A resolved configuration of ``CLIPVisionModelWithProjection``.

    Attributes:
        size: height and width of the images that it takes, in pixels.
        patch: side of a patch, in pixels.
        projection: width of an image's embedding.

    """

    width: int
    inner: int
    layers: int
    heads: int
    size: int
    patch: int
    projection: int
    activation: str
    eps: float

    @property
    def tokens(self) -> int:
        """How many tokens an image has: its patches, and the one that stands for the whole."""
        return (self.size // self.patch) ** 2 + 1

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any]) -> "ImageEncoderConfig":
        """Resolve the contents of a ``config.json``.

        Raises:
            CheckpointError: an option has a value that this network does not implement.

        """
        activation = config.get("hidden_act", "quick_gelu")
        if activation not in ("gelu", "quick_gelu"):
            raise CheckpointError(
                f"the image encoder's hidden_act={activation!r} is not supported; gelu, quick_gelu are"
            )
        if config.get("num_channels", 3) != 3:
            raise CheckpointError(f"the image encoder's num_channels={config['num_channels']!r} is not supported; 3 is")
        return cls(
            width=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            size=config["image_size"],
            patch=config["patch_size"],
            projection=config.get("projection_dim", 512),
            activation=activation,
            eps=config.get("layer_norm_eps", 1e-5),
        )
