"""What the modules of a UNet are called in LDM and SGM (CompVis, Stability), and in diffusers.

LDM numbers the blocks of the way down, and of the way up, in one list each; an entry is a residual block with or
without attention, or a resampling.
"""

import re
from collections.abc import Collection

__all__ = ["RESNET", "STEM", "ldm_modules"]

STEM = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
"""LDM's name of a module -> diffusers', of what is outside the lists."""

RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
"""The same inside a residual block."""

_IN_RESNET = {ours: ldm for ldm, ours in RESNET.items()}
_MEMBER = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)(?=\.|$)")


def ldm_modules(modules: Collection[str]) -> dict[str, str]:
    """Return LDM's name for each module of a UNet that has one.

    Args:
        modules: diffusers' names of all its modules that have weights; they show how many layers each level has.

    """
    groups = {ours: ldm for ldm, ours in STEM.items()} | _lists(modules)
    names = {}
    for module in modules:
        parts = module.split(".")
        for depth in range(len(parts), 0, -1):
            group, rest = ".".join(parts[:depth]), ".".join(parts[depth:])
            if group in groups:
                inner = _IN_RESNET.get(rest, rest) if ".resnets." in group else rest
                names[module] = f"{groups[group]}.{inner}" if inner else groups[group]
                break
    return names


def _lists(modules: Collection[str]) -> dict[str, str]:
    """Name the entries of the two lists: diffusers' name of a block, an attention or a resampling -> LDM's."""
    members = {(m[1], int(m[2]), m[3], int(m[4])) for module in modules if (m := _MEMBER.match(module))}
    names = {}
    for way, place in (("down", 1), ("up", 0)):  # the first entry of the way down is the network's first convolution
        for level in sorted({member[1] for member in members if member[0] == way}):
            layers = sorted(member[3] for member in members if member[:3] == (way, level, "resnets"))
            attends = (way, level, "attentions", 0) in members
            for layer in layers:
                entry = f"{'input' if way == 'down' else 'output'}_blocks.{place}"
                names[f"{way}_blocks.{level}.resnets.{layer}"] = f"{entry}.0"
                names[f"{way}_blocks.{level}.attentions.{layer}"] = f"{entry}.1"
                if way == "up" and layer == layers[-1] and (way, level, "upsamplers", 0) in members:
                    names[f"up_blocks.{level}.upsamplers.0.conv"] = f"{entry}.{2 if attends else 1}.conv"
                place += 1
            if (way, level, "downsamplers", 0) in members:
                names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{place}.0.op"
                place += 1
    return names
