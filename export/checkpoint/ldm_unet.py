"""Names of UNet and ControlNet weights: LDM's and SGM's (CompVis, Stability) to diffusers'.

LDM numbers the blocks of the way down, and of the way up, in one list each; an entry is a residual block with or
without attention, or a resampling. Walking the list gives level and layer, so no config is needed.
"""

import re
from collections.abc import Collection, Iterable

from ...engines.errors import CheckpointError
from ...engines.nets.ldm_names import RESNET, STEM

__all__ = ["controlnet_names", "unet_names"]


def unet_names(names: Collection[str]) -> dict[str, str]:
    """Return diffusers' name for every LDM name, both without a prefix.

    Raises:
        CheckpointError: a block is missing from the list, or a name is none of a UNet's.

    """
    return _renamed(names, {**STEM, **_down(names), **_up(names)}, "UNet")


def controlnet_names(names: Collection[str]) -> dict[str, str]:
    """Return diffusers' name for every LDM name of a ControlNet, both without a prefix.

    Raises:
        CheckpointError: as for :func:`unet_names`.

    """
    modules = {**STEM, **_down(names), "middle_block_out.0": "controlnet_mid_block"}
    modules |= {f"zero_convs.{i}.0": f"controlnet_down_blocks.{i}" for i in _blocks(names, "zero_convs")}
    # Convolutions stand at the even places of the hint's list, activations between them.
    hint = sorted({int(m[1]) for name in names if (m := re.match(r"input_hint_block\.(\d+)\.", name))})
    for i, place in enumerate(hint):
        inner = "conv_in" if i == 0 else "conv_out" if i == len(hint) - 1 else f"blocks.{i - 1}"
        modules[f"input_hint_block.{place}"] = f"controlnet_cond_embedding.{inner}"
    return _renamed(names, modules, "ControlNet")


def _down(names: Collection[str]) -> dict[str, str]:
    modules, level, layer = {}, 0, 0
    for i in _blocks(names, "input_blocks")[1:]:
        if f"input_blocks.{i}.0.op.weight" in names:
            modules[f"input_blocks.{i}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
            level, layer = level + 1, 0
        else:
            modules[f"input_blocks.{i}.0"] = f"down_blocks.{level}.resnets.{layer}"
            modules[f"input_blocks.{i}.1"] = f"down_blocks.{level}.attentions.{layer}"
            layer += 1
    return modules


def _up(names: Collection[str]) -> dict[str, str]:
    modules, level, layer = {}, 0, 0
    for i in _blocks(names, "output_blocks"):
        modules[f"output_blocks.{i}.0"] = f"up_blocks.{level}.resnets.{layer}"
        modules[f"output_blocks.{i}.1"] = f"up_blocks.{level}.attentions.{layer}"
        layer += 1
        for place in (1, 2):  # behind the attention, if there is one
            if f"output_blocks.{i}.{place}.conv.weight" in names:
                modules[f"output_blocks.{i}.{place}.conv"] = f"up_blocks.{level}.upsamplers.0.conv"
                level, layer = level + 1, 0
    return modules


def _blocks(names: Iterable[str], group: str) -> list[int]:
    numbers = sorted({int(m[1]) for name in names if (m := re.match(rf"{group}\.(\d+)\.", name))})
    missing = set(range(numbers[-1] + 1 if numbers else 1)) - set(numbers) if len(numbers) < 1000 else {0}
    if missing:
        raise CheckpointError(f"the weights of {group}.{min(missing)} are missing")
    return numbers


def _renamed(names: Iterable[str], modules: dict[str, str], what: str) -> dict[str, str]:
    renamed, unknown = {}, []
    for name in names:
        parts = name.split(".")
        # The longest module first: an upsampling's convolution is where another block has its attention.
        for length in (4, 3, 2):
            module = modules.get(".".join(parts[:length]))
            if module is not None:
                rest = ".".join(parts[length:])
                renamed[name] = f"{module}.{_resnet(rest) if '.resnets.' in module else rest}"
                break
        else:
            unknown.append(name)
    if unknown:
        some = ", ".join(repr(name) for name in sorted(unknown)[:3])
        raise CheckpointError(f"{len(unknown)} weights are none of a {what}'s: {some}")
    return renamed


def _resnet(rest: str) -> str:
    module, _, kind = rest.rpartition(".")
    return f"{RESNET.get(module, module)}.{kind}"
