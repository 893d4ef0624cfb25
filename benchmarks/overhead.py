"""What a step costs beside the network: our loop and diffusers' loop around a UNet that does nothing.

    python benchmarks/overhead.py [--samples 1 4] [--rounds 7]

Every figure is a slope: the difference between a run of many and a run of few steps, over the difference in steps, so
that preparation drops out. ``nothing`` is an engine whose call returns at once; ``onnxruntime`` is a session with the
denoiser's inputs and a graph that copies the state, less the time of that session's call alone. Time is the process's
CPU time, on one thread: nothing here waits, and other processes do not count. Diffusers' figure holds the arithmetic of
guidance and solver, which we do inside the engine's call; what is compared is the time around the network's call.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from sdengine.engines.bundle.manifest import Graph
from sdengine.engines.component_specs import ShapeSource, denoiser_spec
from sdengine.engines.memory import HOST, Buffer
from sdengine.engines.nets.config import UNetConfig
from sdengine.engines.ort.onnxruntime_cpu import OnnxRuntimeEngine
from sdengine.engines.spec import AxisRange, ComponentSpec
from sdengine.engines.weights import WeightSet
from sdengine.runtime.denoise import Batch, Sample
from sdengine.runtime.denoise.guidance import guidance_for
from sdengine.runtime.denoise.sample import initial_state, step_numbers
from sdengine.runtime.latents.seeds import streams_for
from sdengine.runtime.schedule import make_schedule

EULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
UNET: dict[str, Any] = {  # one cross-attention width, as small as can be: what is in it never runs
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 64,
    "block_out_channels": (32,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "layers_per_block": 1,
    "attention_head_dim": 8,
    "cross_attention_dim": 32,
}
FEW = 10
MANY = 60
MANY_OURS = 510  # a step of ours is too short for the clock otherwise
LATENT = (4, 64, 64)
AXES = {name: AxisRange(1, 1, 512) for name in ("S", "R", "T", "h", "w")}


class Nothing:
    """An engine that costs nothing."""

    name, device, precision, memory = "nothing", "none", "fp32", HOST

    def __init__(self, spec: ComponentSpec) -> None:
        self.spec = spec

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        return lambda: None

    def close(self) -> None: ...


class OneGraph:
    """As much of a bundle as an engine asks for."""

    def __init__(self, folder: Path, spec: ComponentSpec) -> None:
        self.folder, self.path, self.spec = folder, folder, spec
        record = SimpleNamespace(sha256="", bytes=0)
        networks = {"unet": SimpleNamespace(weights="weights")}
        self.manifest = SimpleNamespace(files={"denoiser.onnx": record, "weights": record}, networks=networks)
        self.checks = SimpleNamespace(check=lambda name, file: "")
        onnx.save(_copying_graph(spec), folder / "denoiser.onnx")

    def component(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(network="unet")

    def graph(self, component: str, precision: str) -> Graph:
        return Graph(file="denoiser.onnx", spec=self.spec)

    def file(self, name: str) -> Path:
        return self.folder / name

    checked_file = file

    def checked_graph(self, component: str, graph: str) -> Path:
        return self.folder / graph

    def weights(self, network: str) -> WeightSet:
        return WeightSet(file=self.folder, base="")


def _copying_graph(spec: ComponentSpec) -> onnx.ModelProto:
    def described(tensors: Any) -> list[Any]:
        return [
            onnx.helper.make_tensor_value_info(t.name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype)), t.shape)
            for t in tensors
        ]

    node = onnx.helper.make_node("Identity", ["state"], ["next_state"])
    graph = onnx.helper.make_graph([node], "denoiser", described(spec.inputs), described(spec.outputs))
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=11)


def ours(engine: Any, samples: int) -> Callable[[int], float]:
    """Return what draws with our loop and returns the CPU seconds it took."""
    axes = {"S": 1, "R": 2, "T": 77, "h": LATENT[1], "w": LATENT[2]}
    fixed = [t for t in engine.spec.inputs if t.changes == "request" and t.name != "row_sample"]
    inputs = {"denoiser": {t.name: np.zeros(t.resolve(axes), t.dtype) for t in fixed}}

    def prepared(steps: int) -> list[Sample]:
        schedule = make_schedule(EULER, num_inference_steps=steps)
        guidance = guidance_for(7.5, evaluations=schedule.evaluations, rescale=0.0, guided=True)
        numbers = {"denoiser": {**step_numbers(schedule, guidance), "blend": np.asarray(schedule.blend, np.float32)}}
        noise = streams_for(0, None, samples, "cpu")
        return [
            Sample(
                schedule=schedule,
                rows=guidance.rows,
                components=("denoiser",),
                inputs=inputs,
                numbers=numbers,
                noise=noise.stream(i),
                state=initial_state(np.zeros(LATENT, np.float32)),
            )
            for i in range(samples)
        ]

    batch = Batch([engine], prepared(FEW)[0], slots=samples)

    def draw(steps: int) -> float:
        together = prepared(steps)
        start = time.process_time()
        for sample in together:
            batch.put(sample)
        while batch.active:
            batch.step()
        return time.process_time() - start

    return draw


def calls_alone(engine: Any, samples: int) -> Callable[[int], float]:
    """Return what makes only the engine's calls, on the buffers of a step."""
    axes = {"S": samples, "R": 2 * samples, "T": 77, "h": LATENT[1], "w": LATENT[2]}
    inputs, outputs = (
        {t.name: np.zeros(t.resolve(axes), t.dtype) for t in tensors}
        for tensors in (engine.spec.inputs, engine.spec.outputs)
    )
    once = engine.prepare(inputs, outputs)

    def call(steps: int) -> float:
        start = time.process_time()
        for _ in range(steps):
            once()
        return time.process_time() - start

    return call


def diffusers_loop(samples: int) -> Callable[[int], float]:
    """Return what draws with diffusers' loop, given embedded prompts and asked for latents."""
    unet = UNet2DConditionModel(**UNET)
    prediction = (torch.zeros(2 * samples, *LATENT),)
    unet.forward = lambda *args, **options: prediction
    scheduler = EulerDiscreteScheduler.from_config(EULER)
    # The parts that a call with embeddings and latents does not use are left out.
    pipeline = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    embeds = torch.zeros(samples, 77, UNET["cross_attention_dim"])
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": embeds, "latents": torch.zeros(samples, *LATENT)}

    def draw(steps: int) -> float:
        start = time.process_time()
        pipeline(**given, num_inference_steps=steps, height=512, width=512, output_type="latent")
        return time.process_time() - start

    return draw


def slope(draw: Callable[[int], float], many: int) -> float:
    """CPU microseconds per step."""
    return (draw(many) - draw(FEW)) / (many - FEW) * 1e6


def measure(samples: int, rounds: int, folder: Path) -> dict[str, list[float]]:
    config = UNetConfig.from_diffusers(UNET, pooled=None)
    spec = denoiser_spec(ShapeSource(name="denoiser", config=config, dtype="float32", axes=AXES))
    bundle: Any = OneGraph(folder, spec)
    engine = OnnxRuntimeEngine(bundle, "denoiser", threads=1)
    free, real, alone = ours(Nothing(spec), samples), ours(engine, samples), calls_alone(engine, samples)
    other = diffusers_loop(samples)
    for draw in (free, real, alone, other):
        draw(FEW)
    slopes: dict[str, list[float]] = {"ours, nothing": [], "ours, onnxruntime": [], "diffusers, nothing": []}
    for _ in range(rounds):
        slopes["ours, nothing"].append(slope(free, MANY_OURS))
        slopes["ours, onnxruntime"].append(slope(real, MANY_OURS) - slope(alone, MANY_OURS))
        slopes["diffusers, nothing"].append(slope(other, MANY))
    return slopes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    tools = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch", "diffusers", "onnxruntime"))
    print(f"CPU microseconds per step beside the network: median (least to most) of {args.rounds} alternating rounds")
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {tools}\n")
    print(f"| {'samples':>7} | {'loop, network':<20} | {'us per step':>11} | {'least to most':>15} | to ours |")
    print(f"| {'-' * 6}: | {'-' * 20} | {'-' * 10}: | {'-' * 14}: | ------: |")
    for samples in args.samples:
        with tempfile.TemporaryDirectory() as folder:
            slopes = measure(samples, args.rounds, Path(folder))
        base = statistics.median(slopes["ours, nothing"])
        for name, values in slopes.items():
            middle = statistics.median(values)
            spread = f"{min(values):.0f} to {max(values):.0f}"
            print(f"| {samples:7} | {name:<20} | {middle:11.0f} | {spread:>15} | {middle / base:6.1f}x |")


if __name__ == "__main__":
    main()
