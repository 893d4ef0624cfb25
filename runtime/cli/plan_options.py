"""Options of plans: ``sdengine export`` and ``sdengine build`` share them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .made_options import with_options

if TYPE_CHECKING:
    from ...engines.trt import BuildOptions

__all__ = ["with_plan_options"]


def _option(written: Any, name: str, about: str) -> Any:
    return Annotated[written, typer.Option(f"--{name}", help=about, rich_help_panel="Options of plans")]


_OPTIONS: dict[str, tuple[Any, Any]] = {
    "target": (
        _option(
            list[str] | None,
            "target",
            "GPU generation to compile for, like sm89; tensorrt-rtx only; repeatable. [the GPU here]",
        ),
        None,
    ),
    "workspace": (
        _option(int | None, "workspace", "Most scratch memory of a kernel, in MiB. [what is free]"),
        None,
    ),
    "optimization_level": (_option(int | None, "optimization-level", "0 (build fast) to 5 (search long)."), None),
    "timing_cache": (_option(bool, "timing-cache", "Keep kernel timings; tensorrt only."), False),
    "weight_streaming": (_option(bool, "weight-streaming", "Let the runtime keep weights in host memory."), False),
    "refit": (_option(bool, "refit", "Let weights be replaced in the open plan."), False),
    "strip": (_option(bool, "strip", "Leave the weights out; opening the plan puts them in."), False),
    "hardware_compatible": (
        _option(bool, "hardware-compatible", "One plan for Ampere and newer; tensorrt only."),
        False,
    ),
    "version_compatible": (
        _option(bool, "version-compatible", "A plan that newer releases open; tensorrt only."),
        False,
    ),
}


def _collected(values: dict[str, Any]) -> "BuildOptions":
    from ...engines.trt import BuildOptions

    targets, workspace = values.pop("target"), values.pop("workspace")
    return BuildOptions(
        targets=tuple(targets or ()), workspace=None if workspace is None else workspace << 20, **values
    )


with_plan_options = with_options("plans", _OPTIONS, _collected)
"""Give a command that has a parameter ``plans``, of :class:`~sdengine.engines.trt.BuildOptions`, the options for it."""
