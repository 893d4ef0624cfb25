"""What a bundle's denoiser costs in ONNX Runtime: the plain graph and the one in its own operators, planned or not.

    python benchmarks/onnxruntime_graphs.py BUNDLE --size 128 --rounds 5

Every measurement is a fresh process, by turns: opening (from the cache, where the network is small enough), the
least of some steps, and the resident memory behind them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.bundle.compiled_cache import CompiledCache
from sdengine.engines.ort.onnxruntime_cpu import version
from sdengine.engines.ort.onnxruntime_session import open_session
from sdengine.engines.resident import release_freed
from step import random_inputs

VARIANTS = [("plain", True), ("plain", False), ("contrib", True), ("contrib", False)]


def measure(bundle: Bundle, variant: str, plan: bool, size: int, steps: int) -> dict[str, float]:
    graph = bundle.graph("denoiser", "fp32")
    file = graph.contrib if variant == "contrib" else graph.file
    if file is None:
        sys.exit("this bundle has no second graph of its denoiser; export it again")
    cache = CompiledCache(bundle, "denoiser", file, engine="benchmark", settings={"version": version()})
    start = time.perf_counter()
    session = open_session(bundle, "denoiser", file, "CPUExecutionProvider", plan_reuse=plan, cache=cache)
    opened = time.perf_counter() - start
    release_freed()
    shape = bundle.component("vae_decoder").graphs["fp32"].spec.outputs[0].shape[1]
    inputs = random_inputs(graph.spec, size, int(str(shape).split("*")[0]))
    binding, result = session.io_binding(), np.empty_like(inputs["state"])
    for name, array in inputs.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("next_state", "cpu", 0, result.dtype, result.shape, result.ctypes.data)
    times = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        times.append(time.perf_counter() - start)
    status = Path("/proc/self/status").read_text(encoding="utf-8").split("VmRSS:")[1]
    return {"open": opened * 1e3, "step": min(times[1:]) * 1e3, "resident": int(status.split()[0]) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only is not None:
        print(json.dumps(measure(Bundle(args.bundle), *VARIANTS[args.only], args.size, args.steps)))
        return
    found: list[list[dict[str, float]]] = [[] for _ in VARIANTS]
    for turn in range(args.rounds + 1):
        for i in range(len(VARIANTS)):
            command = [sys.executable, *sys.argv, "--only", str(i)]
            done = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            if turn:  # before the first turn nothing had been cached
                found[i].append(done)
    print(f"{args.size} pixels, two rows: medians of {args.rounds} rounds; onnxruntime {version()}\n")
    print("| graph | memory planned | open, ms | least | step, ms | least | resident, MB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for (form, plan), rows in zip(VARIANTS, found, strict=True):
        cells = [form, "at opening" if plan else "no"]
        for key in ("open", "step"):
            cells += [f"{statistics.median(r[key] for r in rows):.1f}", f"{min(r[key] for r in rows):.1f}"]
        print(f"| {' | '.join(cells)} | {statistics.median(r['resident'] for r in rows):.0f} |")


if __name__ == "__main__":
    main()
