"""``sdengine bench``: measure a bundle, write a report, compare it with an older one."""

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...engines.errors import SdengineError, UsageError
from ...engines.install_hint import install_hint
from .console import err, work_progress
from .options import Compile, CudaGraph, Device, Threads

if TYPE_CHECKING:
    from ...benchmarks.bench import Report
    from ...benchmarks.bench.compare_reports import Comparison, FigureChange
    from ...benchmarks.bench.settings import BenchOptions

__all__ = ["bench"]

_FILES = ("report.json", "report.html")
_PAGE_NEEDS = ("jinja2", "matplotlib")


def _print_schema(requested: bool) -> None:
    if requested:
        from ...benchmarks.bench import report_schema

        typer.echo(report_schema(), nl=False)
        raise typer.Exit


def bench(
    bundle: Annotated[
        Path | None, typer.Argument(help="A bundle that `sdengine export` wrote.", show_default=False)
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME or NAME:PRECISION; repeatable. [those the bundle was exported for that can run here, and torch]"
        ),
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(help="Like 1024x1024, width x height; repeatable. [the bundle's default]")
    ] = None,
    steps: Annotated[
        list[int] | None, typer.Option(min=1, help="Repeatable. [30, or the default of a distilled checkpoint]")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(min=1, help="Images of a call; repeatable. [1, 2, 4 and 8 as far as it goes]")
    ] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="Measured calls of a case in each round. [5]")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Fresh processes for each engine. [3]")] = None,
    warmup: Annotated[int | None, typer.Option(min=1, help="Calls of a case before those measured. [1]")] = None,
    prompt: Annotated[str | None, typer.Option(help="What to generate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the first image. [0]")] = None,
    guidance_scale: Annotated[float | None, typer.Option("--guidance-scale", "--guidance")] = None,
    scheduler: Annotated[str | None, typer.Option(help="As for `sdengine run`. [the checkpoint's]")] = None,
    threads: Threads = None,
    device: Device = None,
    cuda_graph: CudaGraph = None,
    compile: Compile = None,  # noqa: A002
    reference: Annotated[
        bool | None,
        typer.Option("--reference/--no-reference", help="Compare the images with float32 torch, where it is there."),
    ] = None,
    clients: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Who ask one worker for images at once; repeatable. [as --batch]"),
    ] = None,
    workers: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Worker processes at once; repeatable. [1, 2 and 4 as far as there are cores]"),
    ] = None,
    load: Annotated[
        bool, typer.Option("--load/--no-load", help="Measure images per second, memory and cores under load.")
    ] = True,
    report: Annotated[
        Path | None, typer.Option(help="Folder for report.json and report.html; needs the extra `bench`.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report in that folder.")] = False,
    compare: Annotated[
        Path | None,
        typer.Option(help="A report.json: print the change per figure; exit status 1 if one is worse or missing."),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Per cent that a figure may be worse, beside noise.")] = 5.0,
    saved: Annotated[
        Path | None, typer.Option("--from", help="Show or compare this report.json; nothing is measured.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Print the JSON schema of a report.", is_eager=True, callback=_print_schema),
    ] = False,
) -> None:
    """Measure a bundle: latency, cold start, memory, throughput, and how close the images are to float32 torch."""
    from ...benchmarks.bench.compare_reports import compare_reports
    from ...benchmarks.bench.saved import read_report, report_json
    from ...benchmarks.bench.settings import BenchOptions
    from .bench_tables import print_comparison, print_report

    _check_destination(report, overwrite=overwrite)
    old = None if compare is None else read_report(compare)
    options = BenchOptions(
        engines=tuple(engine or ()),
        sizes=tuple(_size(text) for text in size or ()),
        steps=tuple(steps or ()),
        batches=tuple(batch or ()),
        rounds=rounds,
        runs=runs,
        warmup=warmup,
        prompt=prompt,
        seed=seed,
        guidance_scale=guidance_scale,
        scheduler=scheduler,
        threads=threads,
        device=device,
        cuda_graph=cuda_graph,
        compile=compile,
        reference=reference,
        clients=tuple(clients or ()),
        workers=tuple(workers or ()),
        load=load,
    )
    if saved is not None:
        if bundle is not None or options != BenchOptions():
            raise UsageError("--from shows a report as it is: leave out the bundle and the options of measuring")
        measured = read_report(saved)
    elif bundle is None:
        raise UsageError("name a bundle, or --from REPORT.json")
    else:
        measured = _measured(bundle, options, old, quiet=json)
    comparison = None if old is None else compare_reports(old, measured, tolerance / 100)
    if report is not None:
        _write(measured, comparison, report)
    if json:
        typer.echo(report_json(measured), nl=False)
    else:
        print_report(measured)
        if comparison is not None:
            print_comparison(comparison)
    if comparison is not None and comparison.failed:
        failures = "".join(f"\n  {_failure(change)}" for change in comparison.failed)
        raise SdengineError(f"{len(comparison.failed)} figures fail the comparison with {compare}:{failures}")


def _failure(change: "FigureChange") -> str:
    why = change.reason if change.relative is None else f"{change.relative:+.1%}"
    return f"{change.place}, {' '.join(filter(None, (change.name, change.quantile)))}: {change.verdict} ({why})"


def _measured(bundle: Path, options: "BenchOptions", old: "Report | None", *, quiet: bool) -> "Report":
    from ...benchmarks.bench.compare_reports import check_comparable
    from ...benchmarks.bench.measure import bundle_record, calls_in_all, measure
    from ...benchmarks.bench.settings import settings_for
    from ...engines.bundle.bundle import Bundle

    opened = Bundle(bundle)
    settings, left_out = settings_for(options, opened, None if old is None else old.settings)
    if old is not None:
        check_comparable(old, bundle_record(opened), settings)
    with work_progress(calls_in_all(settings, opened), quiet=quiet) as progress:
        return measure(opened, settings, left_out=left_out, progress=progress)


def _check_destination(folder: Path | None, *, overwrite: bool) -> None:
    """Check before measuring that the report can be written."""
    if folder is None:
        return
    missing = [name for name in _PAGE_NEEDS if find_spec(name) is None]
    if missing:
        raise SdengineError(f"--report needs {' and '.join(missing)}; {install_hint('bench')}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; --report names a folder")
    for name in _FILES:
        if (folder / name).exists() and not overwrite:
            raise UsageError(f"{folder / name} exists already; name another folder, or replace it with --overwrite")
    nearest = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{folder} cannot be made: {nearest} cannot be written to")


def _write(report: "Report", comparison: "Comparison | None", folder: Path) -> None:
    """Write both files, or none."""
    from ...benchmarks.bench.report_page import page_of
    from ...benchmarks.bench.saved import report_json, write_all

    contents = dict(zip(_FILES, (report_json(report), page_of(report, comparison).encode()), strict=True))
    write_all(folder, contents)
    for name in _FILES:
        err.print(f"wrote {folder / name}", markup=False, highlight=False, soft_wrap=True)


def _size(text: str) -> tuple[int, int]:
    """Read ``WIDTHxHEIGHT``, or one number for both; return height and width."""
    match = re.fullmatch(r"\s*(\d+)\s*(?:x\s*(\d+)\s*)?", text)
    if match is None:
        raise UsageError(f"--size {text!r}: write WIDTHxHEIGHT in pixels, like 1024x768")
    width = int(match[1])
    return int(match[2] or width), width
