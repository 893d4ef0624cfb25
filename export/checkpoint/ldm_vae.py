"""Names of VAE weights: LDM's to diffusers'."""

import re
from collections.abc import Collection

from ...engines.errors import CheckpointError

__all__ = ["vae_names"]

_RULES: tuple[tuple[str, str], ...] = (
    (r"(post_)?quant_conv\.(\w+)", r"\1quant_conv.\2"),
    (r"(encoder|decoder)\.(conv_in|conv_out)\.(\w+)", r"\1.\2.\3"),
    (r"(encoder|decoder)\.norm_out\.(\w+)", r"\1.conv_norm_out.\2"),
    (r"(encoder|decoder)\.mid\.block_1\.(.+)", r"\1.mid_block.resnets.0.\2"),
    (r"(encoder|decoder)\.mid\.block_2\.(.+)", r"\1.mid_block.resnets.1.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.norm\.(\w+)", r"\1.mid_block.attentions.0.group_norm.\2"),
    (r"(encoder|decoder)\.mid\.attn_1\.([qkv])\.(\w+)", r"\1.mid_block.attentions.0.to_\2.\3"),
    (r"(encoder|decoder)\.mid\.attn_1\.proj_out\.(\w+)", r"\1.mid_block.attentions.0.to_out.0.\2"),
    (r"encoder\.down\.(\d+)\.block\.(\d+)\.(.+)", r"encoder.down_blocks.\1.resnets.\2.\3"),
    (r"encoder\.down\.(\d+)\.downsample\.(.+)", r"encoder.down_blocks.\1.downsamplers.0.\2"),
    (r"decoder\.up\.(\d+)\.block\.(\d+)\.(.+)", r"decoder.up_blocks.\1.resnets.\2.\3"),
    (r"decoder\.up\.(\d+)\.upsample\.(.+)", r"decoder.up_blocks.\1.upsamplers.0.\2"),
)
_COMPILED = [(re.compile(pattern), template) for pattern, template in _RULES]
_UP = re.compile(r"(?<=^decoder\.up_blocks\.)\d+")


def vae_names(names: Collection[str]) -> dict[str, str]:
    """Return diffusers' name for every LDM name, both without a prefix.

    LDM numbers the decoder's levels from the finest, diffusers in the order in which they run.

    Raises:
        CheckpointError: a name is none of a VAE's.

    """
    levels = 1 + max((int(m[1]) for name in names if (m := re.match(r"decoder\.up\.(\d+)\.", name))), default=-1)
    renamed = {name: _renamed(name, levels) for name in names}
    unknown = sorted(name for name, new in renamed.items() if new is None)
    if unknown:
        some = ", ".join(repr(name) for name in unknown[:3])
        raise CheckpointError(f"{len(unknown)} weights are none of a VAE's: {some}")
    return {name: new for name, new in renamed.items() if new is not None}


def _renamed(name: str, levels: int) -> str | None:
    for pattern, template in _COMPILED:
        match = pattern.fullmatch(name)
        if match:
            new = match.expand(template).replace(".nin_shortcut.", ".conv_shortcut.")
            return _UP.sub(lambda level: str(levels - 1 - int(level[0])), new)
    return None
