"""From starting a process to its first picture: ours on each engine, and diffusers drawing the same checkpoint.

    python benchmarks/startup.py sdengine-demo/bundle [--engines onnxruntime openvino] [--rounds 5] [--steps 20]

Every start is a fresh process, and the contestants take turns, so that all find the same files in the system's memory.
Parts: the interpreter up to its first line; importing the library (``sdengine.runtime``; the pipeline's class of
diffusers); importing what computes (ONNX Runtime, OpenVINO; torch); opening (the bundle's manifest and tokenizers; all
that ``from_pretrained`` does); compiling the engines; the first call. Diffusers computes in float32 on the CPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import sdengine.export
from sdengine.engines.bundle import Bundle
from sdengine.runtime.bench.environment import environment_here
from sdengine.runtime.bench.fresh import do_in_fresh_process
from sdengine.runtime.bench.job import Cold, Job
from sdengine.runtime.bench.settings import Asked, Settings, settings_for

PARTS = Cold.__struct_fields__
GUIDANCE = 5.0
DIFFUSERS = """
import time; clock = [time.perf_counter()]
import json, sys
asked = json.load(sys.stdin)
import torch; clock.append(time.perf_counter())
from diffusers import StableDiffusionXLPipeline; clock.append(time.perf_counter())
pipeline = StableDiffusionXLPipeline.from_pretrained(asked.pop("checkpoint"), torch_dtype=torch.float32)
clock.append(time.perf_counter())
pipeline.set_progress_bar_config(disable=True)
generator = torch.Generator("cpu").manual_seed(asked.pop("seed"))
picture = pipeline(**asked, generator=generator).images[0]; clock.append(time.perf_counter())
print(json.dumps({"clock": clock, "size": picture.size}))
"""


def ours(bundle: Bundle, engine: str, settings: Settings) -> Callable[[], dict[str, float]]:
    job = Job(bundle=str(bundle.path), engine=engine, settings=settings, task="start", pictures=None, started=0.0)

    def start() -> dict[str, float]:
        cold = do_in_fresh_process(job).cold
        assert cold is not None
        return {part: getattr(cold, part) for part in PARTS}

    return start


def diffusers(checkpoint: Path, settings: Settings) -> Callable[[], dict[str, float]]:
    height, width = settings.sizes[0]
    asked = {
        "checkpoint": str(checkpoint),
        "prompt": settings.prompt,
        "height": height,
        "width": width,
        "num_inference_steps": settings.steps[0],
        "guidance_scale": settings.guidance_scale,
        "seed": settings.seed,
    }

    def start() -> dict[str, float]:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DIFFUSERS],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout)
        assert found["size"] == [width, height]
        first, library, imports, opened, drawn = found["clock"]
        moments = {
            "process": first - started,
            "imports": imports - library,
            "library": library - first,
            "open": opened - imports,
            "compile": 0.0,
            "first_picture": drawn - opened,
            "total": drawn - started,
        }
        return {part: seconds * 1e3 for part, seconds in moments.items()}

    return start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="of the checkpoint that diffusers draws")
    parser.add_argument("--checkpoint", type=Path, default=Path(sdengine.export.__file__).parent / "demo/checkpoint")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    bundle = Bundle(args.bundle)
    asked = Asked(engines=args.engines, steps=[args.steps], batches=[1], guidance_scale=GUIDANCE)
    settings, _ = settings_for(asked, bundle)
    starts = {engine: ours(bundle, engine, settings) for engine in args.engines}
    starts["diffusers"] = diffusers(args.checkpoint, settings)
    for start in starts.values():  # so that all files have been read
        start()
    rounds = [{name: start() for name, start in starts.items()} for _ in range(args.rounds)]
    height, width = settings.sizes[0]
    tools = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "torch", "diffusers"))
    print(f"milliseconds to the first picture, {width}x{height}, {args.steps} steps: medians of {args.rounds} rounds")
    print(f"{environment_here().cpu.model}, Python {sys.version.split()[0]}, {tools}\n")
    heads = ("process", "import", "library", "open", "compile", "first picture", "all")
    print(f"| drawn by | {' | '.join(heads)} | least to most | sooner than diffusers |")
    print(f"| --- | {' | '.join('---:' for _ in heads)} | ---: | ---: |")
    totals = {name: [found[name]["total"] for found in rounds] for name in starts}
    slowest = statistics.median(totals["diffusers"])
    for name in starts:
        cells = " | ".join(f"{statistics.median(found[name][part] for found in rounds):.0f}" for part in PARTS)
        spread = f"{min(totals[name]):.0f} to {max(totals[name]):.0f}"
        print(f"| {name} | {cells} | {spread} | {slowest / statistics.median(totals[name]):.1f}x |")


if __name__ == "__main__":
    main()
