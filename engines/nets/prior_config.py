"""A prior's configuration, read from diffusers' ``config.json`` and resolved once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError

__all__ = ["PriorConfig"]

# Options whose other values change the network in ways that no family here uses.
_FIXED: dict[str, tuple[object, ...]] = {
    "added_emb_type": ("prd",),
    "additional_embeddings": (4,),
    "embedding_proj_norm_type": (None,),
    "encoder_hid_proj_type": ("linear",),
    "norm_in_type": (None,),
    "time_embed_act_fn": ("silu",),
}


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """A resolved configuration of ``PriorTransformer``.

    Attributes:
        embedding: width of the embeddings: of the image, of the text as a whole, and of its tokens.
        tokens: length of a text.
        heads: attention heads.
        head: features of a head.
        layers: transformer blocks.
        time: features between the two products of the time's embedding.

    """

    embedding: int
    tokens: int
    heads: int
    head: int
    layers: int
    time: int

    @property
    def width(self) -> int:
        """Features of a token inside the transformer."""
        return self.heads * self.head

    @property
    def prefix(self) -> int:
        """How many tokens do not depend on the step: the text's, and the text as a whole."""
        return self.tokens + 1

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> "PriorConfig":
        """Resolve the contents of a ``config.json``.

        Raises:
            CheckpointError: an option has a value that this network does not implement.

        """
        embedding = config.get("embedding_dim", 768)
        widths = dict.fromkeys(("embedding_proj_dim", "clip_embed_dim"), (None, embedding))
        for option, allowed in (_FIXED | widths).items():
            value = config.get(option, allowed[0])
            if value not in allowed:
                known = " or ".join(repr(a) for a in allowed)
                raise CheckpointError(f"the prior's {option}={value!r} is not supported; {known} is")
        heads, head = config.get("num_attention_heads", 32), config.get("attention_head_dim", 64)
        return cls(
            embedding=embedding,
            tokens=config.get("num_embeddings", 77),
            heads=heads,
            head=head,
            layers=config.get("num_layers", 20),
            time=config.get("time_embed_dim") or heads * head,
        )
