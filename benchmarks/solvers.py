"""What a schedule costs: the time of ``make_schedule`` for every solver, by number of steps.

Run: python benchmarks/solvers.py [--steps 20 50 100] [--repeats 200]
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
from sdengine.runtime.schedule import make_schedule, solver_names

SDXL = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
BUDGET_MS = 1.0


def sample_ms(make: Callable[[], object], repeats: int) -> list[float]:
    for _ in range(5):
        make()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        make()
        times.append((time.perf_counter() - start) * 1e3)
    return times


def solvers() -> list[str]:
    return [name for name in solver_names() if name.endswith("Scheduler")]


def maker(solver: str, steps: int) -> Callable[[], object]:
    overrides = {"original_inference_steps": max(50, steps)} if solver in ("LCMScheduler", "TCDScheduler") else {}

    def make() -> object:
        return make_schedule(SDXL, solver=solver, overrides=overrides, num_inference_steps=steps)

    return make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args()

    print(f"make_schedule, milliseconds: median (90th percentile) of {args.repeats} after 5 to warm up")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}\n")
    print(f"{'solver':<32}" + "".join(f"{f'{steps} steps':>18}" for steps in args.steps))
    slow = []
    for solver in solvers():
        cells = []
        for steps in args.steps:
            times = sample_ms(maker(solver, steps), args.repeats)
            median, high = statistics.median(times), statistics.quantiles(times, n=10)[-1]
            cells.append(f"{median:9.3f} ({high:6.3f})")
            if steps == 50 and median > BUDGET_MS:
                slow.append(solver)
        print(f"{solver:<32}" + "".join(f"{cell:>18}" for cell in cells))
    if 50 in args.steps:
        print(f"\n50 steps in under {BUDGET_MS:g} ms: " + (f"all but {', '.join(slow)}" if slow else "all"))


if __name__ == "__main__":
    main()
