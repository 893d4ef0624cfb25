"""How strongly a LoRA is applied: one number, or numbers by component and by block, as diffusers' ``set_adapters``.

::

    0.8
    {"unet": 0.8, "text_encoder": 0.5, "text_encoder_2": 0.5}
    {"unet": {"down": 0.9, "mid": 1.0, "up": {"block_0": 0.6, "block_1": [0.4, 0.8, 1.0]}}}
    {"unet": 0.8, "scale": 0.5}

What is not named has strength 1; ``scale`` multiplies all, also what is not named. The numbers of a block are for its
attentions, one for each; its residual blocks and resamplings take the number of the attention in their place, as in
diffusers.
"""

import math
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any

from ..errors import UsageError, nearest
from ..scalars import shortened
from .names import Networks

__all__ = ["COMPONENTS", "Strength", "Strengths", "plain_strength", "strengths_of"]

Strength = float | Mapping[str, Any]
"""See the module."""

COMPONENTS = ("unet", "text_encoder", "text_encoder_2")
"""Networks that a strength can name; those that the checkpoint lacks have no effect."""
_SCALE = "scale"
_WAYS = ("down", "mid", "up")
_PLACE = re.compile(r"(down|up)_blocks\.(\d+)\.\w+\.(\d+)")
_ATTENTION = re.compile(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)\.")


class Strengths:
    """A strength, resolved for some networks.

    Args:
        whole: by network, what holds where no block says otherwise.
        blocks: of the UNet: (way, level, place in it) -> number; the middle is ``("mid", 0, 0)``.

    """

    def __init__(self, whole: Mapping[str, float], blocks: Mapping[tuple[str, int, int], float]) -> None:
        self._whole, self._blocks = dict(whole), dict(blocks)

    def of(self, network: str, weight: str) -> float:
        """Return the strength for one weight."""
        if network == "unet" and self._blocks:
            if weight.startswith("mid_block.attentions.0."):
                return self._blocks["mid", 0, 0]
            if match := _PLACE.match(weight):
                return self._blocks.get((match[1], int(match[2]), int(match[3])), self._whole[network])
        return self._whole[network]

    def times(self, factor: float) -> "Strengths":
        """Return them all multiplied."""
        return Strengths(
            {name: factor * number for name, number in self._whole.items()},
            {place: factor * number for place, number in self._blocks.items()},
        )

    def of_network(self, network: str) -> str:
        """Return what identifies those of a network."""
        blocks = sorted(self._blocks.items()) if network == "unet" else []
        return repr((self._whole[network], blocks))


def plain_strength(strength: Any) -> Any:
    """Return a strength in Python's own types, numpy's numbers included; what is no strength as it is."""
    if isinstance(strength, Mapping):
        return {name: plain_strength(value) for name, value in strength.items()}
    if isinstance(strength, (list, tuple)):
        return [plain_strength(value) for value in strength]
    return float(strength) if isinstance(strength, Real) and not isinstance(strength, bool) else strength


def strengths_of(strength: Strength, networks: Networks) -> Strengths:
    """Resolve a strength.

    Raises:
        UsageError: it is no finite number, or names something that is not there.

    """
    if not isinstance(strength, Mapping):
        return Strengths(dict.fromkeys(networks, _number(strength, "a LoRA")), {})
    for name in strength:
        if name not in (*COMPONENTS, _SCALE):
            raise UsageError(
                f"the strength of a LoRA names {name!r}: it can name {', '.join(networks)}{nearest(name, networks)}"
            )
    whole: dict[str, float] = {}
    blocks: dict[tuple[str, int, int], float] = {}
    for name in networks:
        value = strength.get(name, 1.0)
        if isinstance(value, Mapping):
            if name != "unet":
                raise UsageError(f"the strength of a LoRA for {name} is one number: only the UNet has blocks")
            whole[name], blocks = 1.0, _blocks(value, networks[name])
        else:
            whole[name] = _number(value, name)
    return Strengths(whole, blocks).times(_number(strength.get(_SCALE, 1.0), _SCALE))


def _blocks(strength: Mapping[str, Any], weights: Mapping[str, object]) -> dict[tuple[str, int, int], float]:
    levels: dict[str, dict[int, int]] = {"down": {}, "up": {}}
    for name in weights:
        if match := _ATTENTION.match(name):
            counts, number = levels[match[1]], int(match[2])
            counts[number] = max(counts.get(number, 0), int(match[3]) + 1)
    for way in strength:
        if way not in _WAYS:
            raise UsageError(f"the strength of a LoRA for the UNet names {way!r}: it can name {', '.join(_WAYS)}")
    numbers_of = {("mid", 0, 0): _listed(strength.get("mid", 1.0), 1, "mid")[0]}
    for way in ("down", "up"):
        value = strength.get(way, 1.0)
        named = value if isinstance(value, Mapping) else {f"block_{level}": value for level in levels[way]}
        for block in named:
            if block not in (f"block_{level}" for level in levels[way]):
                have = ", ".join(f"block_{level}" for level in levels[way])
                raise UsageError(f"the strength of a LoRA names {block!r} of {way}, where {have} have attentions")
        for level, count in levels[way].items():
            numbers = _listed(named.get(f"block_{level}", 1.0), count, f"block_{level} of {way}")
            numbers_of |= {(way, level, place): number for place, number in enumerate(numbers)}
    return numbers_of


def _listed(value: Any, count: int, what: str) -> list[float]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(values) not in (1, count):
        raise UsageError(f"the strength of a LoRA has {len(values)} numbers for {what}, which has {count} attentions")
    return [_number(v, what) for v in values] * (count // len(values))


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise UsageError(f"the strength of {what} should be a number, not {shortened(value)}")
    return float(value)
