"""The torch engine beside diffusers on this machine's CPU: eager and compiled, in turns, one process.

    python benchmarks/torch_engine.py --rounds 7

Both draw the demo's image with 20 steps; diffusers is compiled as for benchmarks/peers (fixed shapes, projections
fused, inference mode). Medians, quartiles and the ratio of each round are printed.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from sdengine.export import export_bundle
from sdengine.export.demo.training.write_checkpoint import CHECKPOINT
from sdengine.runtime import Pipeline

SETTINGS: dict[str, Any] = {"num_inference_steps": 20, "guidance_scale": 3.0, "height": 128, "width": 128}
PROMPT = "a large red circle on a blue background"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def ours(bundle: Path, precision: str, *, compiled: bool) -> Callable[[int], Any]:
    pipe = Pipeline.load(bundle, engine="torch", device="cpu", precision=precision, compile=compiled)
    return lambda seed: np.asarray(pipe(PROMPT, seed=seed, **SETTINGS).images[0])


def theirs(checkpoint: Path, precision: str, *, compiled: bool) -> Callable[[int], Any]:
    pipe: Any = DiffusionPipeline.from_pretrained(checkpoint, torch_dtype=DTYPES[precision])
    pipe.set_progress_bar_config(disable=True)
    if precision != "fp32":
        pipe.unet.to(memory_format=torch.channels_last)
    if compiled:
        pipe.unet.fuse_qkv_projections()
        pipe.unet = torch.compile(pipe.unet, dynamic=False)

    @torch.inference_mode()
    def draw(seed: int) -> Any:
        return np.asarray(pipe(PROMPT, generator=torch.Generator().manual_seed(seed), **SETTINGS).images[0])

    return draw


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=sorted(DTYPES), default="fp32")
    options = parser.parse_args()
    checkpoint = CHECKPOINT
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "demo"
        export_bundle(checkpoint, bundle, engines=["torch"], verify="off")
        contenders = {
            "diffusers, eager": theirs(checkpoint, options.precision, compiled=False),
            "diffusers, torch.compile": theirs(checkpoint, options.precision, compiled=True),
            "sdengine, eager": ours(bundle, options.precision, compiled=False),
            "sdengine, --compile": ours(bundle, options.precision, compiled=True),
        }
        for name, draw in contenders.items():
            begin = time.perf_counter()
            draw(0)
            print(f"{name}: first image {time.perf_counter() - begin:.1f} s", flush=True)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for seed in range(options.rounds):
            for name, draw in contenders.items():
                begin = time.perf_counter()
                draw(seed)
                times[name].append(time.perf_counter() - begin)
    print(f"{options.precision}, {options.rounds} rounds, torch {torch.__version__}")
    for name, each in times.items():
        low, middle, high = statistics.quantiles(each, n=4)
        print(f"{name:26} {middle * 1e3:8.1f} ms ({low * 1e3:.1f} to {high * 1e3:.1f}), least {min(each) * 1e3:.1f}")
    for kind, name in (("eager", "diffusers, eager"), ("--compile", "diffusers, torch.compile")):
        ratios = [a / b for a, b in zip(times[name], times[f"sdengine, {kind}"], strict=True)]
        print(f"{name} / sdengine, {kind}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
