"""``sdengine build``: compile the components of a bundle to TensorRT plans, on the machine that will run them."""

from typing import Annotated

import typer

from ...engines.trt.arguments import (
    HardwareCompatible,
    OptimizationLevel,
    Refit,
    Strip,
    Targets,
    TimingCache,
    VersionCompatible,
    WeightStreaming,
    WorkspaceMiB,
)
from .console import build_progress, err, out, table
from .options import BundlePath

__all__ = ["build"]


def build(
    bundle: BundlePath,
    engine: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.", show_default=False)],
    component: Annotated[list[str] | None, typer.Option(help="Only this one; repeatable.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; the first that the bundle has.")] = None,
    verify: Annotated[str, typer.Option(help="full, fast or off: compare each plan with torch, on a GPU.")] = "fast",
    target: Targets = None,
    workspace: WorkspaceMiB = None,
    optimization_level: OptimizationLevel = None,
    timing_cache: TimingCache = False,
    weight_streaming: WeightStreaming = False,
    refit: Refit = False,
    strip: Strip = False,
    hardware_compatible: HardwareCompatible = False,
    version_compatible: VersionCompatible = False,
) -> None:
    """Add TensorRT plans to a bundle."""
    from ...engines.bundle.bundle import Bundle
    from ...engines.parity import check_verify
    from ...engines.trt import COLUMNS, BuildOptions, build_engines, rows_of
    from ...engines.trt.verified import verify_plans

    check_verify(verify)

    def report(line: str) -> None:
        err.print(line, markup=False, highlight=False, soft_wrap=True)

    options = BuildOptions(
        workspace=None if workspace is None else workspace << 20,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        weight_streaming=weight_streaming,
        refit=refit,
        strip=strip,
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
        targets=tuple(target or ()),
    )
    with build_progress() as progress:
        plans = build_engines(
            bundle,
            engine,
            options=options,
            components=component or (),
            precision=precision,
            report=report,
            progress=progress,
        )
    with err.status("verifying"):
        verify_plans(Bundle(bundle), plans, verify, report)  # type: ignore[arg-type]  # checked above
    shown = table("Plans", *COLUMNS)
    for row in rows_of(plans):
        shown.add_row(*row)
    out.print(shown)
