"""What it costs to change to other LoRAs, on each engine, and in diffusers on the same checkpoint.

    python benchmarks/random_checkpoint.py sd15 /tmp/sd15 --dtype fp32
    sdengine export /tmp/sd15 -o /tmp/sd15-bundle --sizes 512x512 --batch 1
    python benchmarks/lora.py /tmp/sd15-bundle [--checkpoint /tmp/sd15] [--engines onnxruntime openvino torch]
                              [--precision bf16] [--rounds 3] [--repeats 2] [--size 512] [--steps 2] [--low-memory]

Two random LoRAs of rank 32 for every matrix and convolution of the UNet and the text encoders are put over the weights
in turn. Ours: ``Pipeline.set_loras``, from the files to open engines, in place of the LoRA before; "away" is back to
the bundle's weights. diffusers: ``load_lora_weights`` and ``fuse_lora``; "away" is ``unfuse_lora`` and
``unload_lora_weights``, which a change to another LoRA needs first. With ``--size`` also a step, and what the first one
after a change takes beyond it, as engines pack weights when they first run; in diffusers a step with the LoRA fused and
one with it beside the weights (unfused). A step is the median of ``--steps`` behind the first. With ``--low-memory``
components of ours are opened after the change, together, and closed again: so a checkpoint fits of whose weights there
is no room for two sets. Each contestant runs in a process of its own; with ``--repeats`` they take turns.

Memory is that of the process which no file backs (``RssAnon``, Linux), in GB: before the first change, the most while
changing, and after the last: weights that are mapped from a file are not in it.
"""

import argparse
import contextlib
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
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


class Clock:
    """Seconds since it was made, and the process's own CPU seconds, which other work on the machine disturbs least."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> list[float]:
        """Return both."""
        return [time.perf_counter() - self._start[0], time.process_time() - self._start[1]]


def memory() -> float:
    """Return the memory of this process that no file backs, in GB."""
    match = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(match[1]) / 1e6 if match else float("nan")


@contextlib.contextmanager
def most_memory(most: list[float]) -> Iterator[None]:
    """Add the most memory that is seen while the body runs."""
    seen, ended = [memory()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            seen.append(memory())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        most.append(max(seen))


def ours(
    engine: str,
    bundle: str,
    loras: list[str],
    rounds: int,
    size: int | None,
    precision: str,
    steps: int,
    *,
    low_memory: bool,
) -> dict[str, list[Any]]:
    """Measure one engine."""
    from sdengine.runtime import Pipeline

    seen: dict[str, list[Any]] = {name: [] for name in ("change", "away", "step", "first step", "most")}
    with Pipeline.load(bundle, engine=engine, precision=precision, low_memory=low_memory) as pipe:
        changed = (*pipe.bundle.text_encoders, "conditioner", "denoiser")

        def change(loras: list[str]) -> None:
            pipe.set_loras(loras)
            if low_memory:
                with pipe.components.use(*changed):
                    pass

        seen["before"] = [memory()]
        for i in range(rounds):
            clock = Clock()
            with most_memory(seen["most"]):
                change([loras[i % 2]])
            seen["change"].append(clock.read())
            if size is not None:
                request = {**STEP, "height": size, "width": size, "output_type": "latent", "seed": 1}
                first, *others = pipe(**request, num_inference_steps=steps + 1).timings_ms.steps
                step = statistics.median(others) / 1e3
                seen["first step"].append(first / 1e3 - step)
                seen["step"].append(step)
        seen["after"] = [memory()]
        clock = Clock()
        change([])
        seen["away"].append(clock.read())
    return seen


def diffusers(
    checkpoint: str, loras: list[str], rounds: int, size: int | None, precision: str, steps: int
) -> dict[str, list[Any]]:
    """Measure diffusers."""
    import torch
    from diffusers import DiffusionPipeline

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    pipe: Any = DiffusionPipeline.from_pretrained(checkpoint, torch_dtype=dtype)
    pipe.set_progress_bar_config(disable=True)

    def step(size: int) -> float:
        times: list[float] = []
        settings = {**STEP, "height": size, "width": size, "output_type": "latent", "num_inference_steps": steps + 1}
        pipe(**settings, callback_on_step_end=lambda *_: times.append(time.perf_counter()) or {})
        return statistics.median(after - before for before, after in itertools.pairwise(times))

    seen: dict[str, list[Any]] = {name: [] for name in ("change", "away", "step", "unfused", "most")}
    seen["before"] = [memory()]
    for i in range(rounds):
        clock = Clock()
        with most_memory(seen["most"]):
            pipe.load_lora_weights(loras[i % 2], adapter_name="a")
        loaded = clock.read()
        if size is not None:
            seen["unfused"].append(step(size))
        clock = Clock()
        with most_memory(seen["most"]):
            pipe.fuse_lora()
        seen["most"][-2:] = [max(seen["most"][-2:])]
        seen["change"].append([before + after for before, after in zip(loaded, clock.read(), strict=True)])
        seen["after"] = [memory()]
        if size is not None:
            seen["step"].append(step(size))
        clock = Clock()
        pipe.unfuse_lora()
        pipe.unload_lora_weights()
        seen["away"].append(clock.read())
    return seen


def main() -> None:
    """Run the contestants, each in a process of its own, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--checkpoint", help="of the bundle, for diffusers")
    parser.add_argument("--engines", nargs="*", default=["onnxruntime", "openvino", "torch"])
    parser.add_argument(
        "--precision", default="fp32", help="of the bundle, and what diffusers loads (fp32, bf16, fp16)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="changes in each process")
    parser.add_argument("--repeats", type=int, default=1, help="processes of each contestant, by turns")
    parser.add_argument("--size", type=int, help="pixels of an image whose steps are measured as well")
    parser.add_argument("--steps", type=int, default=2, help="that are measured, behind the first")
    parser.add_argument("--low-memory", action="store_true", help="ours opens components only where they are used")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--loras", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        settings = args.loras, args.rounds, args.size, args.precision, args.steps
        if args.only == "diffusers":
            print(json.dumps(diffusers(args.checkpoint, *settings)))
        else:
            print(json.dumps(ours(args.only, args.bundle, *settings, low_memory=args.low_memory)))
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder, f"{name}.safetensors")) for name in "ab"]
        for seed, file in enumerate(files):
            write_lora(Path(args.bundle), Path(file), seed)
        print(f"LoRAs of {Path(files[0]).stat().st_size / 1e6:.0f} MB\n")
        names = (*args.engines, *(["diffusers"] if args.checkpoint else []))
        measured: dict[str, dict[str, list[Any]]] = {}
        for name in names * args.repeats:
            command = [sys.executable, *sys.argv, "--only", name, "--loras", *files]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                continue
            for part, values in json.loads(done.stdout.splitlines()[-1]).items():
                measured.setdefault(name, {}).setdefault(part, []).extend(values)
            print(f"{name}: {measured[name]}", file=sys.stderr, flush=True)
    columns = ["change, s", "CPU s", "away, s", "CPU s"]
    columns += ["first step adds, s", "step, s", "unfused step, s", "before, GB", "most, GB", "after, GB"]
    print(f"| | {' | '.join(columns)} |\n| --- {'| ---: ' * len(columns)}|")
    for name, parts in measured.items():
        cells = [statistics.median(column) for part in ("change", "away") for column in zip(*parts[part], strict=True)]
        others = ("first step", "step", "unfused", "before", "most", "after")
        cells += [statistics.median(parts[part]) if parts.get(part) else None for part in others]
        print(f"| {name} | {' | '.join('' if cell is None else f'{cell:.3g}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
