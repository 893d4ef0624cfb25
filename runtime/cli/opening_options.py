"""Options of how a bundle is opened: ``sdengine run`` and ``sdengine serve`` share them."""

import re
from typing import Annotated, Any

import typer

from .made_options import with_options
from .options import Compile, CudaGraph, Device, Engine, Threads

__all__ = ["with_opening_options"]


def _engine(written: Any, about: str, *flags: str) -> Any:
    return Annotated[written, typer.Option(*flags, help=about, rich_help_panel="Engine")]


def _memory(written: Any, about: str, **more: Any) -> Any:
    return Annotated[written, typer.Option(help=about, rich_help_panel="Speed and memory", **more)]


_OPTIONS: dict[str, tuple[Any, Any]] = {
    "engine": (Engine, "auto"),
    "precision": (_engine(str | None, "fp32, bf16 or fp16; the first that engine and bundle have."), None),
    "fallback": (
        _engine(str | None, "error: refuse if the engine cannot run; allow: take the next. Default: allow with auto."),
        None,
    ),
    "threads": (Threads, None),
    "device": (Device, None),
    "cuda_graph": (CudaGraph, None),
    "compile": (Compile, None),
    "weight_streaming_budget": (
        _memory(
            str | None,
            "TensorRT: weights that stay on the GPU, of a plan that streams them: bytes, 0.0 to 1.0, auto.",
        ),
        None,
    ),
    "memory_limit": (
        _memory(int | None, "ONNX Runtime on a GPU: most MiB for each open component. Default: what is free.", min=1),
        None,
    ),
    "vae_tiling": (
        _memory(
            str,
            "Decode and encode large images in tiles, of this side. auto: where the whole needs too much memory.",
            metavar="auto|on|off|PIXELS",
        ),
        "auto",
    ),
    "verify": (
        _engine(
            str,
            "Compare files with their SHA-256: always, once (large ones after a change), never (not the weights).",
            "--verify",
        ),
        "once",
    ),
}


def _collected(values: dict[str, Any]) -> dict[str, Any]:
    limit = values["memory_limit"]
    return {
        **values,
        "weight_streaming_budget": _parsed_budget(values["weight_streaming_budget"]),
        "memory_limit": None if limit is None else limit << 20,
    }


def _parsed_budget(text: str | None) -> int | float | str | None:
    """Read a number of bytes, a share with a point in it, or ``auto``."""
    if text is None or not re.fullmatch(r"\d+|\d*\.\d+", text):
        return text  # other texts are refused where they are used
    return float(text) if "." in text else int(text)


with_opening_options = with_options("opening", _OPTIONS, _collected)
"""Give a command that has a parameter ``opening``, of arguments of ``Pipeline.load``, the options for it."""
