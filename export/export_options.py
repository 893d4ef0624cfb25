"""What a bundle was exported with, as options of ``sdengine export``: so that it can be exported again, but for one."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..engines.trt import BuildOptions

__all__ = ["export_options"]


def export_options(values: Mapping[str, Any], build: BuildOptions) -> list[str]:
    """Return the options as words of a command line.

    Args:
        values: by name, as :func:`~sdengine.export.export_bundle` takes them; what is None, False or empty is left
            out. Of files the names alone are recorded: where they lie is nobody else's business.
        build: options of plans.

    """
    words = []
    for name, value in values.items():
        words += _words(f"--{name.replace('_', '-')}", value)
    for name in build.__struct_fields__:
        value = getattr(build, name)
        if value != getattr(BuildOptions(), name):
            flag = "--target" if name == "targets" else f"--{name.replace('_', '-')}"
            words += _words(flag, value >> 20 if name == "workspace" else value)
    return words


def _words(flag: str, value: Any) -> list[str]:
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    entries = value if isinstance(value, (list, tuple)) else [value]
    return [word for entry in entries for word in (flag, _text(entry))]


def _text(value: Any) -> str:
    if isinstance(value, tuple):  # a LoRA and its strength
        return f"{_text(value[0])}:{value[1]:g}" if isinstance(value[1], (int, float)) else _text(value[0])
    return Path(value).name if isinstance(value, os.PathLike) or Path(str(value)).exists() else str(value)
