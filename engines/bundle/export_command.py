"""The command that exports a bundle again: what hints end with."""

import shlex
from collections.abc import Sequence
from pathlib import Path

__all__ = ["export_command"]

_REPEATABLE = ("--controlnet", "--engine", "--lora", "--target")


def export_command(path: Path, source: str, options: Sequence[str], *changes: str) -> str:
    """Return the command that makes a bundle again, with the options that it was made with.

    Args:
        path: of the bundle.
        source: the checkpoint.
        options: of ``sdengine export``, as the manifest has them.
        changes: options that are to be others: flags and their values by turns. Those that may be given several times
            are added.

    """
    pairs = list(zip(changes[::2], changes[1::2], strict=True))
    replaced = {flag for flag, _ in pairs if flag not in _REPEATABLE}
    left_out = {i for i, word in enumerate(options) if word in replaced}
    words = [word for i, word in enumerate(options) if i not in left_out and i - 1 not in left_out]
    added = [word for pair in pairs for word in pair]
    return shlex.join(["sdengine", "export", source, "-o", str(path), "--overwrite", *words, *added])
