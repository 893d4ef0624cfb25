"""A MoVQ's configuration, read from diffusers' ``config.json`` and resolved once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError

__all__ = ["SPATIAL_GROUPS", "MoVQConfig"]

SPATIAL_GROUPS = 32
"""Groups of every spatial norm, whatever the config says of the others."""

_DOWN = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}
_UP = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}
_FIXED: dict[str, tuple[object, ...]] = {
    "act_fn": ("silu",),
    "in_channels": (3,),
    "lookup_from_codebook": (False,),
    "mid_block_add_attention": (True,),
    "norm_type": ("spatial",),
    "out_channels": (3,),
}


@dataclass(frozen=True, kw_only=True)
class MoVQConfig:
    """A resolved configuration of ``VQModel`` with spatial norms.

    Attributes:
        channels: of each level, from fine to coarse.
        down: whether each level of the encoder has attention, from fine to coarse.
        up: whether each level of the decoder has attention, from coarse to fine.
        latent: channels of the latents.
        codes: entries of the codebook, which decoding has no use for.

    """

    channels: tuple[int, ...]
    down: tuple[bool, ...]
    up: tuple[bool, ...]
    latent: int
    layers: int
    groups: int
    codes: int

    @property
    def factor(self) -> int:
        """Pixels per latent along each side."""
        return 2 ** (len(self.channels) - 1)

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> "MoVQConfig":
        """Resolve the contents of a ``config.json``.

        Raises:
            CheckpointError: an option has a value that this network does not implement.

        """
        latent = config.get("latent_channels", 3)
        usual = {"norm_type": "group"}  # of diffusers, where it differs from what is implemented here
        for option, allowed in (_FIXED | {"vq_embed_dim": (None, latent)}).items():
            value = config.get(option, usual.get(option, allowed[0]))
            if value not in allowed:
                raise CheckpointError(f"the MoVQ's {option}={value!r} is not supported; {allowed[-1]!r} is")
        channels = tuple(config["block_out_channels"])
        return cls(
            channels=channels,
            down=_attention(config, "down_block_types", _DOWN, len(channels)),
            up=_attention(config, "up_block_types", _UP, len(channels)),
            latent=latent,
            layers=config.get("layers_per_block", 1),
            groups=config.get("norm_num_groups", 32),
            codes=config.get("num_vq_embeddings", 256),
        )


def _attention(config: Mapping[str, Any], option: str, known: Mapping[str, bool], levels: int) -> tuple[bool, ...]:
    blocks = config[option]
    for block in blocks:
        if block not in known:
            raise CheckpointError(f"the MoVQ's {option} holds {block!r}; {' and '.join(known)} are supported")
    if len(blocks) != levels:
        raise CheckpointError(f"the MoVQ has {len(blocks)} {option} for {levels} block_out_channels")
    return tuple(known[block] for block in blocks)
