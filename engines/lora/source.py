"""What a user says about a LoRA: its file, and how strongly it is applied."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..scalars import shortened
from .file import Lora, read_lora
from .names import Networks
from .strength import Strength, Strengths, plain_strength, strengths_of

__all__ = ["LoraSource", "parse_lora", "read_loras", "sources_of"]

LoraSource = str | Path | tuple[str | Path, Strength]
"""A file or a folder, at strength 1; or a pair of it and its strength."""

_WEIGHTED = re.compile(r"(.+):([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")


def parse_lora(text: str) -> tuple[str, float]:
    """Read ``FILE`` or ``FILE:WEIGHT``."""
    match = _WEIGHTED.fullmatch(text)
    if match is None or Path(text).exists():
        return text, 1.0
    return match[1], float(match[2])


def sources_of(sources: Sequence[LoraSource]) -> list[tuple[Path, Strength]]:
    """Return file and strength of each source.

    Raises:
        UsageError: one is neither a file nor a pair, or they are no list.

    """
    if isinstance(sources, (str, bytes, Path, Mapping)) or not _has_items(sources):
        raise UsageError(f"loras={shortened(sources)}: give a list of files, or of pairs of a file and its strength")
    return [_source(source) for source in sources]


def _has_items(value: object) -> bool:
    try:
        iter(value)  # type: ignore[call-overload]
    except TypeError:  # arrays without axes have an __iter__, too
        return False
    return True


def _source(source: Any) -> tuple[Path, Strength]:
    path, strength = source if isinstance(source, (tuple, list)) and len(source) == 2 else (source, 1.0)
    if not isinstance(path, (str, Path)) or not str(path):
        raise UsageError(f"{shortened(source)} is no LoRA: give a file, or a pair of a file and its strength")
    return Path(path).expanduser(), plain_strength(strength)


def read_loras(sources: Sequence[LoraSource], networks: Networks) -> list[tuple[Lora, Strength, Strengths]]:
    """Read LoRAs against the networks that they are to change.

    Args:
        sources: the files, in the order in which they are added.
        networks: what they may change.

    Returns:
        Each LoRA, its strength as the user wrote it, and that resolved for the networks.

    Raises:
        UsageError: a file is for other networks, holds what cannot be applied, or a strength means nothing.
        CheckpointError: a file is damaged.

    """
    loras = []
    for path, strength in sources_of(sources):
        strengths = strengths_of(strength, networks)
        loras.append((read_lora(path, networks), strength, strengths))
    return loras
