"""Compiles a bundle's components ahead of time and prints seconds, peak memory and plan sizes, one process each.

Full-size SDXL without its published weights::

    python benchmarks/random_checkpoint.py sdxl CHECKPOINT     # random weights of the published shapes
    sdengine export CHECKPOINT -o BUNDLE --engine tensorrt-rtx --precision fp16 --sizes 1024x1024 --stop-after graphs
    python benchmarks/trt_build.py BUNDLE --target sm89
"""

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.trt import BuildOptions, build_engines


def build_one(path: Path, engine: str, component: str, options: BuildOptions) -> tuple[str, ...]:
    started = time.perf_counter()
    [plan] = build_engines(path, engine, options=options, components=[component])
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    record = plan.record
    return (
        component,
        record.source.precision,
        "kept" if plan.reused else f"{seconds:.1f}",
        f"{peak / 2**30:.2f}",
        f"{record.plan_bytes / 1e6:.1f}",
        "?" if record.activation_bytes is None else f"{record.activation_bytes / 1e6:.1f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", default="tensorrt-rtx")
    parser.add_argument("--target", action="append", default=[])
    parser.add_argument("--component", action="append", default=[])
    arguments = parser.parse_args()
    options = BuildOptions(targets=tuple(arguments.target))
    table = Table("component", "precision", "seconds", "peak GiB", "plan MB", "scratch MB")
    fresh = multiprocessing.get_context("spawn")  # peak memory is a process's, and a forked one inherits it
    for component in arguments.component or list(Bundle(arguments.bundle).manifest.components):
        with fresh.Pool(1) as pool:
            table.add_row(*pool.apply(build_one, (arguments.bundle, arguments.engine, component, options)))
    Console().print(table)


if __name__ == "__main__":
    main()
