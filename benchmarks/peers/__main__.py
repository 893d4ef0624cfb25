"""One UNet step, or one picture, of ours beside the other ways to run Stable Diffusion on a CPU.

    python benchmarks/peers sd15 BUNDLE CHECKPOINT       a step of two rows at 512x512, random weights
    python benchmarks/peers sdxl BUNDLE CHECKPOINT
    python benchmarks/peers picture BUNDLE CHECKPOINT    20 steps of the demo checkpoint

BUNDLE and CHECKPOINT are of the same weights; export the bundle with ``--sizes 512x512 --batch 1`` (the demo's with
``--sizes 128x128``), which is our best configuration as a fixed size is that of optimum-intel. Every contender has its
own environment (made under ``.work/peers`` when it is first run) and its own process, one at a time; rounds alternate
between them. The first contender named is what the others' results are compared with, in dB of PSNR.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from environments import CACHE, python_of

HERE = Path(__file__).parent
# contender: (environment, script, variant)
CONTENDERS: dict[str, tuple[str, str, str]] = {
    "ours, openvino fp32": ("ours", "ours.py", "openvino:fp32"),
    "ours, openvino bf16": ("ours", "ours.py", "openvino:bf16"),
    "ours, onnxruntime fp32": ("ours", "ours.py", "onnxruntime:fp32"),
    "diffusers, eager float32": ("diffusers", "torch_diffusers.py", "float32"),
    "diffusers, eager bfloat16, channels last": ("diffusers", "torch_diffusers.py", "bfloat16"),
    "diffusers, torch.compile bfloat16": ("diffusers", "torch_diffusers.py", "compiled"),
    "optimum-onnx": ("optimum-onnx", "optimum_pipelines.py", "onnxruntime"),
    "optimum-intel": ("optimum-intel", "optimum_pipelines.py", "openvino"),
    "optimum-intel, fixed size": ("optimum-intel", "optimum_pipelines.py", "openvino:static"),
    "stable-diffusion.cpp": ("stable-diffusion.cpp", "sd_cpp.py", ""),
}
PICTURE = {"prompt": "a large red circle on a blue background", "num_inference_steps": 20, "guidance_scale": 5.0}
Told = dict[str, Any]


def step_inputs(checkpoint: Path, size: int) -> dict[str, Any]:
    """Random inputs of a step of two rows; both are of one latent."""
    config = json.loads((checkpoint / "unet" / "config.json").read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)

    def random(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    found = {
        "sample": np.repeat(random(1, 4, size // 8, size // 8), 2, 0),
        "timestep": np.full(2, 501, np.float32),
        "hidden": random(2, 77, config["cross_attention_dim"]),
    }
    if config.get("addition_embed_type") == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        found |= {"pooled": random(2, pooled), "time_ids": np.array([[size, size, 0, 0, size, size]] * 2, np.float32)}
    return found


def unet_flops(bundle: str, inputs: Mapping[str, Any]) -> float:
    """Count what two rows of the plain network take, products and convolutions."""
    import torch
    from sdengine.engines.bundle import Bundle
    from sdengine.engines.nets.build import network_from_config
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet: Any = network_from_config(Bundle(bundle).config("unet"), torch.float32)
        pairs = [(torch.empty(2, 77, layer.to_q.out_features),) * 2 for layer in unet.cross_attentions()]
        embedding = torch.empty(2, unet.config.embedding) if "pooled" in inputs else None
        with FlopCounterMode(display=False) as counter:
            unet(torch.empty(inputs["sample"].shape), torch.empty(2), pairs, embedding=embedding)
    return float(counter.get_total_flops())


def run_once(name: str, job: Mapping[str, Any], folder: Path) -> Told:
    """Run a contender's process; what it cannot do is told as ``error``."""
    environment, script, variant = CONTENDERS[name]
    file = folder / "job.json"
    exported = CACHE / "exports" / f"{Path(job['checkpoint']).name}-{environment}"
    file.write_text(json.dumps({**job, "variant": variant, "exported": str(exported)}), encoding="utf-8")
    try:
        command = [python_of(environment), str(HERE / script), str(file)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    if not lines:
        why = (ran.stderr.strip().splitlines() or [""])[-1]
        return {"error": f"ended with status {ran.returncode}: {why[:200]}"}
    told: Told = json.loads(lines[-1])
    return told


def psnr(actual: Any, expected: Any) -> str:
    if actual.shape != expected.shape:
        return ""
    span = 255.0 if expected.dtype == np.uint8 else float(np.ptp(expected))
    error = float(np.sqrt(np.mean((actual.astype(np.float64) - expected) ** 2)))
    return f"{20 * np.log10(span / error):.1f} dB" if error else "equal"


def report(results: Mapping[str, list[Told]], outputs: Mapping[str, Any], flops: float | None) -> None:
    """Print one table."""
    from peak import matrix_product_peak

    peaks = {}
    if flops is not None:
        peaks = {kind: matrix_product_peak(kind) for kind in ("bfloat16", "float32")}
        print(f"{flops / 1e12:.2f} TFLOP; matrix-product peak, GFLOP/s: {peaks}\n")
    print("| contender | s | least to most | CPU s | open, s | peak RSS, MB | of the bfloat16 peak | PSNR |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    reference = next(iter(outputs.values()), None)
    for name, rounds in results.items():
        errors = [told["error"] for told in rounds if "error" in told]
        if errors:
            print(f"| {name} | not run: {errors[0]} | | | | | | |")
            continue
        walls = [s for told in rounds for s in told["wall"]]
        cpus = [s for told in rounds for s in told["cpu"]]
        middle = statistics.median(walls)
        share = f"{100 * flops / middle / 1e9 / peaks['bfloat16']:.0f} %" if flops is not None else ""
        opening = statistics.median(told["first"] for told in rounds)
        peak = max(told["peak_rss_mb"] for told in rounds)
        print(
            f"| {name} | {middle:.3f} | {min(walls):.3f} to {max(walls):.3f} | {statistics.median(cpus):.2f} "
            f"| {opening:.1f} | {peak:.0f} | {share} | {psnr(outputs[name], reference)} |"
        )
    versions: dict[str, str] = {}
    for name, rounds in results.items():
        said = ", ".join(f"{package} {number}" for package, number in rounds[0].get("versions", {}).items())
        versions.setdefault(CONTENDERS[name][0], said)
    print("\n" + "\n".join(f"{environment}: {said}" for environment, said in versions.items() if said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sd15", "sdxl", "picture"))
    parser.add_argument("bundle")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="calls in a round")
    parser.add_argument("--size", type=int, help="pixels; 512 for a step, 128 for a picture")
    parser.add_argument("--only", action="append", choices=list(CONTENDERS), metavar="CONTENDER")
    args = parser.parse_args()
    size = args.size or (128 if args.what == "picture" else 512)
    folder = CACHE / "runs" / f"{args.what}-{os.getpid()}"
    folder.mkdir(parents=True)
    job: dict[str, Any] = {
        "model": args.bundle,
        "checkpoint": str(args.checkpoint),
        "xl": args.what != "sd15",
        "size": size,
        "repeats": args.repeats,
        "threads": os.cpu_count(),
    }
    inputs = None
    if args.what == "picture":
        job["picture"] = {**PICTURE, "height": size, "width": size, "seed": 31}
    else:
        inputs = step_inputs(args.checkpoint, size)
        np.savez(folder / "inputs.npz", **inputs)
        job["inputs"] = str(folder / "inputs.npz")
    results: dict[str, list[Told]] = {name: [] for name in args.only or CONTENDERS}
    outputs: dict[str, Any] = {}
    for number in range(args.rounds):
        for name in results:
            if any("error" in told for told in results[name]):
                continue
            told = run_once(name, {**job, "output": str(folder / "output.npy")}, folder)
            results[name].append(told)
            print(f"round {number + 1}: {name}: {told.get('wall') or told.get('error')}", file=sys.stderr, flush=True)
            if "error" not in told:
                outputs[name] = np.load(folder / "output.npy")
    report(results, outputs, None if inputs is None else unet_flops(args.bundle, inputs))


if __name__ == "__main__":
    main()
