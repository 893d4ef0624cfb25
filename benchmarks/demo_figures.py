"""How well the demo checkpoint draws, for every engine and precision and for diffusers itself.

Asks for scenes that were held out of training, reads the pictures back, and prints one Markdown table::

    python benchmarks/demo_figures.py [--count 200] [--only NAME]...
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sdengine.engines.registry import ENGINES
from sdengine.export import export_bundle
from sdengine.export.demo.training.evaluate import Draw, Figures, evaluate
from sdengine.runtime import Pipeline

STEPS, GUIDANCE = 20, 5.0
CHECKPOINT = Path(__file__).parent.parent / "export" / "demo" / "checkpoint"


def drawer(pipeline: Pipeline) -> Draw:
    """Draw with one of our pipelines."""

    def draw(prompts: Sequence[str], seeds: Sequence[int], **micro: Any) -> list[Any]:
        result = pipeline(list(prompts), seed=list(seeds), num_inference_steps=STEPS, guidance_scale=GUIDANCE, **micro)
        return [np.asarray(image) for image in result.images]

    return draw


def diffusers_drawer() -> Draw:
    """Draw with diffusers' own pipeline."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    pipeline: Any = StableDiffusionXLPipeline.from_pretrained(CHECKPOINT, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)

    def draw(prompts: Sequence[str], seeds: Sequence[int], **micro: Any) -> list[Any]:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        images = pipeline(
            list(prompts), generator=generators, num_inference_steps=STEPS, guidance_scale=GUIDANCE, **micro
        ).images
        return [np.asarray(image) for image in images]

    return draw


def row(name: str, figures: Figures) -> str:
    """Format one line of the table."""
    shares = [figures.background, figures.colour, figures.shape, figures.size, figures.crop_direction, figures.softened]
    return f"| {name} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |"


def main() -> None:
    """Evaluate every combination that can run here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="scenes to ask for, each drawn four times")
    parser.add_argument("--only", action="append", help="names of rows to evaluate")
    arguments = parser.parse_args()
    print(f"{arguments.count} held-out scenes, {STEPS} Euler steps, guidance {GUIDANCE:g}\n")
    print("| drawn by | background | colour | shape | size | crop direction | coarse when asked |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bundles = {
            precision: export_bundle("demo", Path(folder) / precision, precision=precision, verify="off").path
            for precision in ("fp32", "fp16")
        }
        combinations = [
            (f"{engine}, {label}", engine, graph, run)
            for engine, graph, run, label in (
                ("onnxruntime", "fp32", "fp32", "float32 on float16 weights"),
                ("onnxruntime", "fp16", "fp16", "float16 graph"),
                ("openvino", "fp32", "fp32", "float32"),
                ("openvino", "fp32", "bf16", "bfloat16"),
                ("torch", "fp32", "fp32", "float32"),
                ("torch", "fp32", "bf16", "bfloat16"),
            )
            if engine in ENGINES
        ]
        for name, engine, graph, precision in combinations:
            if arguments.only and name not in arguments.only:
                continue
            reason = ENGINES[engine].module.unavailable()
            if reason is not None:
                print(f"| {name} | {reason} | | | | | |")
                continue
            with Pipeline.load(bundles[graph], engine=engine, precision=precision) as pipeline:
                print(row(name, evaluate(drawer(pipeline), count=arguments.count)), flush=True)
    if not arguments.only or "diffusers, float32" in arguments.only:
        print(row("diffusers, float32", evaluate(diffusers_drawer(), count=arguments.count)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
