"""One UNet step, or one image, of ours beside the other ways to run Stable Diffusion on a CPU.

    python benchmarks/peers sd15 BUNDLE CHECKPOINT       a step of two rows at 512x512, random weights
    python benchmarks/peers sdxl BUNDLE CHECKPOINT
    python benchmarks/peers image BUNDLE CHECKPOINT      20 steps of the demo checkpoint

BUNDLE and CHECKPOINT are of the same weights; export the bundle with ``--sizes 512x512 --batch 1`` (the demo's with
``--sizes 128x128``), which is our best configuration as a fixed size is that of optimum-intel. Every contender has its
own environment and its own export of the checkpoint (made under ``.work/peers`` when they are first needed, none of it
timed) and its own process, one at a time; rounds alternate between them. One that is more than twice as slow as the
fastest has no second round. The first contender is what the others' results are compared with, in dB of PSNR.
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import numpy as np
from contenders import CONTENDERS
from environments import CACHE
from processes import run_job
from race import HERE, Race, say
from table import comparison, table, versions
from unet_step import step_inputs, unet_flops

IMAGE = {"prompt": "a large red circle on a blue background", "num_inference_steps": 20, "guidance_scale": 5.0}
# What is drawn by who cannot be asked for a step. Single letters are the same tokens in every CLIP vocabulary.
DRAWN = {"prompt": "a b c", "negative_prompt": "d", "guidance_scale": 7.5, "seed": 31}
DRAWN_STEPS = {"sd15": 3, "sdxl": 2}  # the first is not counted; with SDXL each takes the better part of a minute


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sd15", "sdxl", "image"))
    parser.add_argument("bundle")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--bf16-bundle", metavar="BUNDLE", help="one exported with --precision bf16")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, help="calls in a round, after one to warm up; 3 steps, or 5 images")
    parser.add_argument("--seconds", type=float, default=20, help="after these no other call is begun in a round")
    parser.add_argument("--size", type=int, help="pixels; 512 for a step, 128 for an image")
    parser.add_argument("--only", action="append", choices=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--prepare", action="store_true", help="make environments and exports, and measure nothing")
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):  # they end it as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    draws = args.what == "image"
    size = args.size or (128 if draws else 512)
    folder = CACHE / "runs" / f"{args.what}-{os.getpid()}"
    folder.mkdir(parents=True)
    inputs = None if draws else step_inputs(args.checkpoint, size)
    if inputs is not None:
        np.savez(folder / "inputs.npz", **inputs)
    image = {**IMAGE, "seed": 31}
    if not draws:
        image = {**DRAWN, "num_inference_steps": DRAWN_STEPS[args.what], "spacing": "trailing"}
    job = {
        "bundle": args.bundle,
        "bf16_bundle": args.bf16_bundle,
        "checkpoint": str(args.checkpoint),
        "xl": args.what != "sd15",
        "size": size,
        "repeats": args.repeats or (5 if draws else 3),
        "seconds": args.seconds,
        "threads": os.cpu_count(),
        "inputs": None if inputs is None else str(folder / "inputs.npz"),
        "image": {**image, "height": size, "width": size},
    }
    race = Race(job, folder)
    default = [name for name in CONTENDERS if args.bf16_bundle or "bf16_bundle" not in CONTENDERS[name].variant]
    race.results = {name: [] for name in args.only or default}
    say(f"logs: {folder}")
    interrupted, apart, flops, peaks = False, {}, None, {}
    try:
        if args.prepare:
            race.prepare()
            return 0
        for number in range(1, args.rounds + 1):
            race.round(number)
        apart = race.apart()
        if inputs is not None:
            flops = unet_flops(args.bundle, inputs)
            say("matrix-product peak")
            peaks = run_job([sys.executable, str(HERE / "peak.py")], job, race.log("peak"))
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted")
    if flops is not None:
        measured = peaks.get("error") or ", ".join(f"{kind} {value:.0f}" for kind, value in peaks.items())
        print(f"{flops / 1e12:.2f} TFLOP; matrix-product peak, GFLOP/s: {measured}\n")
    print(table(race.results, apart, flops, peaks.get("bfloat16")))
    print(f"\n{comparison(race.results)}\n\n{versions(race.results)}")
    return 130 if interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
