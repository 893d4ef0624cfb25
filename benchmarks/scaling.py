"""What a step costs by size and batch, on each engine, with a fitted curve.

    python benchmarks/scaling.py sdengine-demo/bundle [--engines onnxruntime openvino] [--sizes 64 96 128 192 256]

The curve for S samples of n latents (1/8 of the pixels a side, so n = height * width / 64) is

    milliseconds = a + b S n / 1000 + c S n^2 / 1000000

a is what a step costs whatever its size, b what grows with the picture (convolutions, norms, cross-attention), c what
grows with its square (self-attention). The fit is of least relative residuals, with no coefficient below zero. It is
measured as ``sdengine bench`` does: fresh processes, the engines by turns.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sdengine.benchmarks.bench.figure import Figure
from sdengine.benchmarks.bench.measure import measure
from sdengine.benchmarks.bench.report import Case
from sdengine.benchmarks.bench.settings import BenchOptions, settings_for
from sdengine.engines.bundle.bundle import Bundle

F64 = NDArray[np.float64]


def step_of(case: Case) -> Figure:
    assert isinstance(case.step, Figure), "an engine that tells its steps one by one"
    return case.step


def fitted(cases: Sequence[Case], factor: int) -> tuple[F64, F64]:
    """Return a, b and c, and the curve's milliseconds for each case."""
    measured = np.array([step_of(case).p50 for case in cases])
    samples = np.array([case.batch for case in cases])
    latents = np.array([case.height * case.width / factor**2 for case in cases])
    terms = np.stack([np.ones(len(cases)), samples * latents / 1e3, samples * latents**2 / 1e6], axis=1)
    best, least = np.zeros(3), np.inf
    for used in (chosen for count in (1, 2, 3) for chosen in combinations(range(3), count)):
        weighted = terms[:, used] / measured[:, None]
        found, *_ = np.linalg.lstsq(weighted, np.ones(len(cases)), rcond=None)
        residual = float(np.sum((weighted @ found - 1) ** 2))
        if found.min() >= 0 and residual < least:
            least, best = residual, np.zeros(3)
            best[list(used)] = found
    return best, terms @ best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128, 192, 256], help="pixels a side")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    bundle = Bundle(args.bundle)
    vae = bundle.autoencoder
    asked = BenchOptions(
        engines=args.engines,
        sizes=[(size, size) for size in args.sizes],
        steps=[args.steps],
        batches=args.batches,
        rounds=args.rounds,
        runs=args.runs,
        reference=False,
    )
    settings, left_out = settings_for(asked, bundle)
    report = measure(bundle, settings, left_out=left_out)
    cpu = report.environment.cpu
    tools = ", ".join(f"{engine.engine} {engine.version}" for engine in report.engines)
    print(
        f"milliseconds of a step, p50 of {args.rounds * args.runs * args.steps}, and how far they are from the curve;"
    )
    print(f"{cpu.model}, {tools}\n")
    print(f"| engine | size | {' | '.join(f'batch {batch}' for batch in args.batches)} |")
    print(f"| --- | ---: | {' | '.join('---:' for _ in args.batches)} |")
    fits = []
    for engine in report.engines:
        (a, b, c), curve = fitted(engine.cases, vae.factor)
        residuals = np.array([step_of(case).p50 for case in engine.cases]) / curve - 1
        cells = [f"{step_of(case).p50:.1f} ({r:+.0%})" for case, r in zip(engine.cases, residuals, strict=True)]
        for i, size in enumerate(args.sizes):
            row = cells[i * len(args.batches) : (i + 1) * len(args.batches)]
            print(f"| {engine.engine} | {size} | {' | '.join(row)} |")
        fits.append(
            f"{engine.engine}: {a:.2f} + {b:.2f} S n / 1000 + {c:.2f} S n^2 / 1000000; "
            f"residual {np.sqrt(np.mean(residuals**2)):.1%} rms, {np.abs(residuals).max():.1%} at most"
        )
    print("\n" + "\n".join(fits))


if __name__ == "__main__":
    main()
