"""The build options as the command line takes them: ``sdengine export`` and ``sdengine build`` share them."""

from typing import Annotated

import typer

__all__ = [
    "HardwareCompatible",
    "OptimizationLevel",
    "Refit",
    "Strip",
    "Targets",
    "TimingCache",
    "VersionCompatible",
    "WeightStreaming",
    "WorkspaceMiB",
]

_PANEL = "Options of plans"

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        help="GPU generation to compile for, like sm89; tensorrt-rtx only; repeatable. [the GPU here]",
        rich_help_panel=_PANEL,
    ),
]
WorkspaceMiB = Annotated[
    int | None,
    typer.Option("--workspace", help="Most scratch memory of a kernel, in MiB. [what is free]", rich_help_panel=_PANEL),
]
OptimizationLevel = Annotated[
    int | None, typer.Option(help="0 (build fast) to 5 (search long).", rich_help_panel=_PANEL)
]
TimingCache = Annotated[
    bool, typer.Option("--timing-cache", help="Keep kernel timings; tensorrt only.", rich_help_panel=_PANEL)
]
WeightStreaming = Annotated[
    bool,
    typer.Option("--weight-streaming", help="Let the runtime keep weights in host memory.", rich_help_panel=_PANEL),
]
Refit = Annotated[
    bool, typer.Option("--refit", help="Let weights be replaced in the open plan.", rich_help_panel=_PANEL)
]
Strip = Annotated[
    bool,
    typer.Option("--strip", help="Leave the weights out; opening the plan puts them in.", rich_help_panel=_PANEL),
]
HardwareCompatible = Annotated[
    bool,
    typer.Option("--hardware-compatible", help="One plan for Ampere and newer; tensorrt only.", rich_help_panel=_PANEL),
]
VersionCompatible = Annotated[
    bool,
    typer.Option(
        "--version-compatible", help="A plan that newer releases open; tensorrt only.", rich_help_panel=_PANEL
    ),
]
