"""Options that several commands share, and the reading of their values."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ...engines.errors import UsageError

__all__ = [
    "BundlePath",
    "Compile",
    "CudaGraph",
    "Device",
    "Engine",
    "LowMemory",
    "Threads",
    "parse_inversion",
    "parse_scheduler_options",
]

BundlePath = Annotated[Path, typer.Argument(help="A bundle that `sdengine export` wrote.", show_default=False)]
Engine = Annotated[
    str,
    typer.Option(
        help="auto (the fastest here), onnxruntime, openvino, torch, ...; see `sdengine doctor`.",
        rich_help_panel="Engine",
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of one operator, on a CPU.", rich_help_panel="Speed and memory")
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda or cuda:N; engines that run elsewhere are skipped. Default: any.", rich_help_panel="Engine"
    ),
]
CudaGraph = Annotated[
    str | None,
    typer.Option(
        help="TensorRT, and torch on a GPU: replay the launches of a step as one, of the whole loop, or off. "
        "Default: step.",
        rich_help_panel="Speed and memory",
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile",
        help="torch: compile what runs at every step (torch.compile); the first image of each size then takes minutes.",
        show_default=False,
        rich_help_panel="Speed and memory",
    ),
]
LowMemory = Annotated[
    bool,
    typer.Option("--low-memory", help="Keep only one component open at a time.", rich_help_panel="Speed and memory"),
]


def parse_scheduler_options(items: list[str]) -> dict[str, Any]:
    """Read ``name=value`` items; values are JSON, or text.

    Raises:
        UsageError: an item has no ``=``.

    """
    options = {}
    for item in items:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise UsageError(f"--scheduler-option {item!r}: write NAME=VALUE, like use_karras_sigmas=true")
        try:
            options[name] = json.loads(value.lower() if value in ("True", "False") else value)
        except json.JSONDecodeError:
            options[name] = value
    return options


def parse_inversion(text: str) -> str | tuple[str, str | list[str]]:
    """Read ``FILE`` or ``FILE=WORD`` or ``FILE=WORD,WORD,...``: a file of embeddings, and what to call them."""
    file, _, words = text.rpartition("=")
    if not file or Path(text).exists():
        return text
    listed = [word.strip() for word in words.split(",")]
    return file, listed if len(listed) > 1 else listed[0]
