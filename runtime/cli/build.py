"""``sdengine build``: compile the components of a bundle to TensorRT plans, on the machine that will run them."""

from typing import Annotated, Any

import typer

from .console import build_progress, err, out, table
from .options import BundlePath
from .plan_options import with_plan_options

__all__ = ["build"]


@with_plan_options
def build(
    bundle: BundlePath,
    engine: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.", show_default=False)],
    component: Annotated[list[str] | None, typer.Option(help="Only this one; repeatable.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; the first that the bundle has.")] = None,
    verify: Annotated[str, typer.Option(help="full, fast or off: compare each plan with torch, on a GPU.")] = "fast",
    plans: Any = None,
) -> None:
    """Add TensorRT plans to a bundle."""
    from ...engines.bundle.bundle import Bundle
    from ...engines.parity import check_verify
    from ...engines.trt import COLUMNS, build_engines, rows_of
    from ...engines.trt.verified import verify_plans

    check_verify(verify)

    def report(line: str) -> None:
        err.print(line, markup=False, highlight=False, soft_wrap=True)

    with build_progress() as progress:
        built = build_engines(
            bundle,
            engine,
            options=plans,
            components=component or (),
            precision=precision,
            report=report,
            progress=progress,
        )
    with err.status("verifying"):
        verify_plans(Bundle(bundle), built, verify, report)  # type: ignore[arg-type]  # checked above
    shown = table("Plans", *COLUMNS)
    for row in rows_of(built):
        shown.add_row(*row)
    out.print(shown)
