"""A text encoder's configuration, read from transformers' ``config.json`` and resolved once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError

__all__ = ["TextEncoderConfig"]


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """A resolved text encoder configuration.

    Attributes:
        tokens: length of a prompt, 77 in CLIP.
        projection: width of the pooled text, or None where it is not projected.
        eos: id that marks the position to pool; 2 stands, as in transformers, for "the highest id".
        final_norm: apply the final layer norm to the hidden layer too (SD 1, SD 2), or to the pooled text only (SDXL).

    """

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    tokens: int
    projection: int | None
    activation: str
    eps: float
    eos: int
    final_norm: bool

    @classmethod
    def from_transformers(cls, config: Mapping[str, Any], *, projected: bool, final_norm: bool) -> "TextEncoderConfig":
        """Resolve the contents of a ``config.json``.

        Args:
            config: the file's mapping.
            projected: whether the class is ``CLIPTextModelWithProjection``.
            final_norm: see the attribute.

        """
        activation = config.get("hidden_act", "quick_gelu")
        if activation not in ("gelu", "quick_gelu"):
            raise CheckpointError(
                f"the text encoder's hidden_act={activation!r} is not supported; gelu, quick_gelu are"
            )
        return cls(
            vocabulary=config["vocab_size"],
            width=config["hidden_size"],
            inner=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            tokens=config.get("max_position_embeddings", 77),
            projection=config.get("projection_dim", 512) if projected else None,
            activation=activation,
            eps=config.get("layer_norm_eps", 1e-5),
            eos=config.get("eos_token_id", 49407),
            final_norm=final_norm,
        )
