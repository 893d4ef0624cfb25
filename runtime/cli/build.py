"""``sdengine build``: compile the components of a bundle to TensorRT plans, on the machine that will run them."""

from typing import Annotated

import typer

from .console import err, out, table
from .options import BundlePath

__all__ = ["build"]


def build(
    bundle: BundlePath,
    engine: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.", show_default=False)],
    component: Annotated[list[str] | None, typer.Option(help="Only this one; repeatable.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; the first that the bundle has.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="GPU generation to compile for, like sm89; tensorrt-rtx only; repeatable.")
    ] = None,
    workspace: Annotated[int | None, typer.Option(help="Most scratch memory of a kernel, in MiB.")] = None,
    optimization_level: Annotated[int | None, typer.Option(help="0 (build fast) to 5 (search long).")] = None,
    timing_cache: Annotated[bool, typer.Option("--timing-cache", help="Keep kernel timings; tensorrt only.")] = False,
    weight_streaming: Annotated[
        bool, typer.Option("--weight-streaming", help="Let the runtime keep weights in host memory.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="One plan for Ampere and newer; tensorrt only.")
    ] = False,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="A plan that newer releases open; tensorrt only.")
    ] = False,
) -> None:
    """Add TensorRT plans to a bundle."""
    from ...engines.trt import COLUMNS, BuildOptions, build_engines, rows_of

    options = BuildOptions(
        workspace=None if workspace is None else workspace << 20,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
        weight_streaming=weight_streaming,
        hardware_compatible=hardware_compatible,
        version_compatible=version_compatible,
        targets=tuple(target or ()),
    )
    with err.status("building"):
        plans = build_engines(
            bundle,
            engine,
            options=options,
            components=component or (),
            precision=precision,
            report=lambda line: err.print(line, markup=False, highlight=False),
        )
    shown = table("Plans", *COLUMNS)
    for row in rows_of(plans):
        shown.add_row(*row)
    out.print(shown)
