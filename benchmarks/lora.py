"""What it costs to change to other LoRAs, on each engine, and in diffusers on the same checkpoint.

    python benchmarks/random_checkpoint.py sd15 /tmp/sd15 --dtype fp32
    sdengine export /tmp/sd15 -o /tmp/sd15-bundle --sizes 512x512 --batch 1
    python benchmarks/lora.py /tmp/sd15-bundle [--checkpoint /tmp/sd15] [--engines onnxruntime openvino torch]

Two random LoRAs of rank 32 for every matrix and convolution of the UNet and the text encoders are put over the weights
in turn. Ours: ``Pipeline.set_loras``, from the file to open engines; "first step" is what a step after it takes beyond
a usual one, as engines pack weights when they first run. diffusers: ``load_lora_weights`` and ``fuse_lora``, after
``unfuse_lora`` and ``unload_lora_weights``; "unfused" is a step with the LoRA beside the weights. Each contestant runs
in a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RANK = 32
STEP: dict[str, Any] = {"prompt": "a cat", "guidance_scale": 1.0}


def write_lora(bundle: Path, file: Path, seed: int) -> None:
    """Write a random LoRA for a bundle, as kohya's scripts do."""
    from safetensors.numpy import save_file
    from sdengine.engines.bundle.bundle import Bundle
    from sdengine.engines.lora import networks_of

    random, tensors = np.random.default_rng(seed), {}
    for network, shapes in networks_of(Bundle(bundle)).items():
        prefix = {"unet": "lora_unet", "text_encoder_2": "lora_te2"}.get(network, "lora_te1")
        prefix = "lora_te" if prefix == "lora_te1" and len(networks_of(Bundle(bundle))) == 2 else prefix
        for name, shape in shapes.items():
            module, _, kind = name.rpartition(".")
            if kind != "weight" or len(shape) not in (2, 4) or "embed" in module:
                continue
            flat, tail = f"{prefix}_{module.replace('.', '_')}", (1, 1) if len(shape) == 4 else ()
            tensors[f"{flat}.lora_down.weight"] = random.normal(0, 0.02, (RANK, *shape[1:])).astype(np.float16)
            tensors[f"{flat}.lora_up.weight"] = random.normal(0, 0.02, (shape[0], RANK, *tail)).astype(np.float16)
            tensors[f"{flat}.alpha"] = np.asarray(RANK, np.float16)
    save_file(tensors, file)


def ours(engine: str, bundle: str, loras: list[str], size: int, rounds: int) -> dict[str, list[float]]:
    """Measure one engine; seconds."""
    from sdengine.runtime import Pipeline

    request = {**STEP, "height": size, "width": size, "num_inference_steps": 2, "output_type": "latent", "seed": 1}
    found: dict[str, list[float]] = {"switch": [], "away": [], "step": [], "first step": []}
    with Pipeline.load(bundle, engine=engine, precision="fp32") as pipe:
        pipe(**request)
        found["step"] = [pipe(**request).timings_ms.steps[1] / 1e3 for _ in range(2)]
        for i in range(rounds):
            started = time.perf_counter()
            pipe.set_loras([loras[i % 2]])
            found["switch"].append(time.perf_counter() - started)
            first, second = pipe(**request).timings_ms.steps
            found["first step"].append((first - second) / 1e3)
        started = time.perf_counter()
        pipe.set_loras([])
        found["away"].append(time.perf_counter() - started)
    return found


def diffusers(checkpoint: str, loras: list[str], size: int, rounds: int) -> dict[str, list[float]]:
    """Measure diffusers; seconds."""
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(checkpoint, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    request = {**STEP, "height": size, "width": size, "output_type": "latent"}

    def step() -> float:
        started = time.perf_counter()
        pipe(**request, num_inference_steps=1)
        middle = time.perf_counter()
        pipe(**request, num_inference_steps=2)
        return (time.perf_counter() - middle) - (middle - started)

    step()
    found: dict[str, list[float]] = {"step": [step()], "switch": [], "away": [], "unfused": []}
    for i in range(rounds):
        started = time.perf_counter()
        pipe.load_lora_weights(loras[i % 2], adapter_name="a")
        loaded = time.perf_counter() - started
        if i == 0:
            found["unfused"] = [step()]
        started = time.perf_counter()
        pipe.fuse_lora()
        found["switch"].append(loaded + time.perf_counter() - started)
        started = time.perf_counter()
        pipe.unfuse_lora()
        pipe.unload_lora_weights()
        found["away"].append(time.perf_counter() - started)
    return found


def main() -> None:
    """Run the contestants, each in a process of its own, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--checkpoint", help="of the bundle, for diffusers")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino", "torch"])
    parser.add_argument("--size", type=int, default=256, help="pixels of the image that is stepped")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--loras", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only == "diffusers":
        print(json.dumps(diffusers(args.checkpoint, args.loras, args.size, args.rounds)))
        return
    if args.only:
        print(json.dumps(ours(args.only, args.bundle, args.loras, args.size, args.rounds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, f"{name}.safetensors")) for name in "ab"]
        for seed, file in enumerate(files):
            write_lora(Path(args.bundle), Path(file), seed)
        print(f"LoRAs of {Path(files[0]).stat().st_size / 1e6:.0f} MB\n")
        print(
            "| | switch, s | away, s | first step adds, s | step, s | unfused step, s |\n| --- " + "| ---: " * 5 + "|"
        )
        for name in (*args.engines, *(["diffusers"] if args.checkpoint else [])):
            command = [sys.executable, *sys.argv, "--only", name, "--loras", *files]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name} failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            parts = ("switch", "away", "first step", "step", "unfused")
            cells = [f"{statistics.median(found[p]):.2f}" if found.get(p) else "" for p in parts]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
