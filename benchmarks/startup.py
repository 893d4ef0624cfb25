"""From starting a process to its first image: ours on each engine, and diffusers from the same checkpoint.

    python benchmarks/startup.py sdengine-demo/bundle [--engines onnxruntime openvino] [--rounds 5] [--steps 20]

Every start is a fresh process, and the contestants take turns, so that all find the same files in the system's memory.
Parts: the interpreter up to its first line; importing (``sdengine.runtime``; torch and the pipeline's class of
diffusers); loading (``Pipeline.load``, which imports the rest while it opens the engines; ``from_pretrained``); the
first call. Diffusers computes in float32 on the CPU. Ours uses what earlier starts have left in the bundle.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sdengine.export
from sdengine.benchmarks.bench.environment import environment_here
from sdengine.benchmarks.bench.settings import BenchOptions, settings_for
from sdengine.engines.bundle.bundle import Bundle

PARTS = ("process", "import", "load", "first image")
GUIDANCE = 5.0
BEGIN = "import time; clock = [time.perf_counter()]; import json, sys; asked = json.load(sys.stdin)"
END = "print(json.dumps({'clock': clock, 'size': image.size}))"
TICK = "; clock.append(time.perf_counter())"
OURS = (
    "from sdengine.runtime import Pipeline",
    "pipeline = Pipeline.load(asked.pop('model'), engine=asked.pop('engine'))",
    "image = pipeline(**asked).images[0]",
)
DIFFUSERS = (
    "import torch; from diffusers import StableDiffusionXLPipeline",
    "pipeline = StableDiffusionXLPipeline.from_pretrained(asked.pop('model'), torch_dtype=torch.float32); "
    "pipeline.set_progress_bar_config(disable=True); generator = torch.Generator('cpu').manual_seed(asked.pop('seed'))",
    "image = pipeline(**asked, generator=generator).images[0]",
)
"""A user's program: what it imports, loads and draws."""


def start(program: tuple[str, str, str], asked: Mapping[str, Any]) -> dict[str, float]:
    """Run a program in a fresh process; return the milliseconds of each part, and of ``all``."""
    lines = [BEGIN, *(line + TICK for line in program), END]
    command = [sys.executable, "-W", "ignore", "-c", "\n".join(lines)]
    started = time.perf_counter()
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout)
    assert found["size"] == [asked["width"], asked["height"]]
    moments = [started, *found["clock"]]
    parts = {part: (after - before) * 1e3 for part, before, after in zip(PARTS, moments, moments[1:], strict=False)}
    return parts | {"all": (moments[-1] - started) * 1e3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="of the checkpoint that diffusers draws")
    parser.add_argument("--checkpoint", type=Path, default=Path(sdengine.export.__file__).parent / "demo/checkpoint")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    bundle = Bundle(args.bundle)
    asked = BenchOptions(engines=args.engines, steps=[args.steps], batches=[1], guidance_scale=GUIDANCE)
    settings, _ = settings_for(asked, bundle)
    height, width = settings.sizes[0]
    request = {
        "prompt": settings.prompt,
        "height": height,
        "width": width,
        "num_inference_steps": args.steps,
        "guidance_scale": GUIDANCE,
        "seed": settings.seed,
    }
    contestants: dict[str, Any] = {e: (OURS, {"model": args.bundle, "engine": e, **request}) for e in args.engines}
    contestants["diffusers"] = (DIFFUSERS, {"model": str(args.checkpoint), **request})
    for program, given in contestants.values():  # so that all files have been read
        start(program, given)
    rounds = [{name: start(*contestant) for name, contestant in contestants.items()} for _ in range(args.rounds)]
    tools = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "torch", "diffusers"))
    print(f"milliseconds to the first image, {width}x{height}, {args.steps} steps: medians of {args.rounds} rounds")
    print(f"{environment_here().cpu.model}, Python {sys.version.split()[0]}, {tools}\n")
    print(f"| drawn by | {' | '.join((*PARTS, 'all'))} | least to most | sooner than diffusers |")
    print(f"| --- | {' | '.join('---:' for _ in (*PARTS, 'all'))} | ---: | ---: |")
    totals = {name: [found[name]["all"] for found in rounds] for name in contestants}
    slowest = statistics.median(totals["diffusers"])
    for name in contestants:
        cells = " | ".join(
            f"{statistics.median(found[name][part] for found in rounds):.0f}" for part in (*PARTS, "all")
        )
        spread = f"{min(totals[name]):.0f} to {max(totals[name]):.0f}"
        print(f"| {name} | {cells} | {spread} | {slowest / statistics.median(totals[name]):.1f}x |")


if __name__ == "__main__":
    main()
