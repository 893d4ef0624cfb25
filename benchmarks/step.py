"""One denoiser step of a bundle on several engines, in alternating rounds of one process.

    python benchmarks/step.py BUNDLE --size 512 onnxruntime:fp32 openvino:fp32 openvino:bf16

The first engine named is what the others' latents are compared with. CPU seconds are of all threads; on a machine that
others use too they are the steadier figure.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.engine import Array
from sdengine.engines.registry import ENGINES, open_engine
from sdengine.engines.spec import ComponentSpec


def random_inputs(spec: ComponentSpec, size: int, factor: int) -> dict[str, Array]:
    """One sample with classifier-free guidance at 7.5; the next latent is the prediction."""
    axes = {"S": 1, "R": 2, "T": 77, "h": size // factor, "w": size // factor}
    rng = np.random.default_rng(0)
    inputs: dict[str, Array] = {}
    for tensor in spec.inputs:
        shape = tensor.resolve(axes)
        numbers = np.zeros(shape) if tensor.name == "row_sample" else rng.standard_normal(shape, np.float32)
        inputs[tensor.name] = numbers.astype(tensor.dtype)
    inputs["timestep"][:], inputs["rescale"][:], inputs["input_scale"][:] = 501, 0, 1
    inputs["mix"][:], inputs["clip"][:] = [[-6.5, 7.5]], np.inf
    inputs["update"][:] = 0
    inputs["update"][:, 0, 5] = 1
    return inputs


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return seconds by the clock, and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def psnr(actual: Array, expected: Array) -> float:
    error = float(np.sqrt(np.mean((actual - expected) ** 2)))
    return float(20 * np.log10(np.ptp(expected) / error)) if error else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("engines", nargs="+", metavar="ENGINE:PRECISION")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    bundle = Bundle(args.bundle)
    factor = bundle.component("vae_decoder").graphs["fp32"].spec.outputs[0].shape[1]
    assert isinstance(factor, str)
    calls, latents, opening = {}, {}, {}
    for asked in args.engines:
        name, precision = asked.split(":")
        start = time.process_time()
        engine = open_engine(bundle, "denoiser", engine=name, precision=precision).engine
        inputs = random_inputs(engine.spec, args.size, int(factor.split("*")[0]))
        outputs: dict[str, Array] = {"next_state": np.empty_like(inputs["state"])}
        calls[asked], latents[asked] = engine.prepare(inputs, outputs), outputs["next_state"]
        opening[asked] = time.process_time() - start
        calls[asked]()
    rounds = [{asked: timed(call) for asked, call in calls.items()} for _ in range(args.rounds)]
    tools = ", ".join(f"{n} {ENGINES[n].module.version()}" for n in dict.fromkeys(a.split(":")[0] for a in calls))
    print(f"one step at {args.size} pixels, two rows: medians of {args.rounds} alternating rounds; {tools}\n")
    print("| engine           | open, CPU s | step, s | least | step, CPU s | least | PSNR to the first |")
    print("| ---------------- | ----------: | ------: | ----: | ----------: | ----: | ----------------: |")
    for asked in calls:
        wall, cpu = ([r[asked][i] for r in rounds] for i in (0, 1))
        near = psnr(latents[asked][:, 0], latents[args.engines[0]][:, 0])
        print(
            f"| {asked:<16} | {opening[asked]:11.1f} | {statistics.median(wall):7.3f} | {min(wall):5.3f} "
            f"| {statistics.median(cpu):11.3f} | {min(cpu):5.3f} | {near:14.1f} dB |"
        )


if __name__ == "__main__":
    main()
