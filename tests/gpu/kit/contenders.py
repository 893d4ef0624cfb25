"""Who draws: sdengine's torch engine and diffusers, each in several ways, behind one call."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Contender", "Drawn", "diffusers_pipeline", "sdengine_pipeline"]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One call.

    Attributes:
        images: uint8 [N, H, W, 3].
        seconds: of the call, until the images are on the host.
        stages: seconds of its parts.

    """

    images: NDArray[np.uint8]
    seconds: float
    stages: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A pipeline, open.

    Attributes:
        name: in tables.
        draw: (prompt, seed, batch) -> what was drawn.
        latents: (prompt, seed) -> float32 [steps, C, h, w], what each step has left of one image.
        close: releases it.
        opened: seconds that loading took, without imports.

    """

    name: str
    draw: Callable[[str, int, int], Drawn]
    latents: Callable[[str, int], NDArray[np.float32]]
    close: Callable[[], None]
    opened: float


def sdengine_pipeline(name: str, bundle: Path, settings: dict[str, Any], **opening: Any) -> Contender:
    """Open a bundle.

    Args:
        name: in tables.
        bundle: its folder.
        settings: of a call.
        opening: of ``Pipeline.load``.

    """
    from sdengine.runtime import Pipeline

    started = time.perf_counter()
    pipe = Pipeline.load(bundle, **opening)
    opened = time.perf_counter() - started

    def draw(prompt: str, seed: int, batch: int) -> Drawn:
        begin = time.perf_counter()
        result = pipe(prompt, seed=seed, num_images_per_prompt=batch, **settings)
        seconds = time.perf_counter() - begin
        times = result.timings_ms
        stages = {name: getattr(times, name) / 1e3 for name in ("text", "condition", "denoise", "decode")}
        return Drawn(images=np.stack([np.asarray(i) for i in result.images]), seconds=seconds, stages=stages)

    def latents(prompt: str, seed: int) -> NDArray[np.float32]:
        seen: list[Any] = []

        def take(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            seen.append(np.array(tensors["latents"][0]))
            return {}

        pipe(prompt, seed=seed, callback_on_step_end=take, **settings)
        return np.stack(seen)

    return Contender(name=name, draw=draw, latents=latents, close=pipe.close, opened=opened)


def diffusers_pipeline(
    name: str, checkpoint: Path, settings: dict[str, Any], *, device: str, dtype: str, compiled: str
) -> Contender:
    """Open a checkpoint with diffusers, in channels-last order; compiled as its documentation advises.

    It starts from the noise that torch draws in float32, as sdengine does. Left alone, diffusers draws it in the type
    of the weights, and torch's CPU generator then gives other numbers, which have nothing to do with float32's.

    Args:
        name: in tables.
        checkpoint: its folder.
        settings: of a call.
        device: where it runs.
        dtype: of its weights, by torch's name.
        compiled: ``compiled`` fuses the projections and compiles UNet and decoder with ``max-autotune``; ``blocks``
            compiles the UNet's transformer blocks, which takes much less time; empty compiles nothing.

    """
    import torch
    from diffusers import DiffusionPipeline

    started = time.perf_counter()
    pipe: Any = DiffusionPipeline.from_pretrained(checkpoint, torch_dtype=getattr(torch, dtype)).to(device)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    if compiled == "blocks":
        pipe.unet.compile_repeated_blocks(fullgraph=True)
    elif compiled:
        pipe.fuse_qkv_projections()
        pipe.unet = torch.compile(pipe.unet, mode="max-autotune", fullgraph=True)
        pipe.vae.decode = torch.compile(pipe.vae.decode, mode="max-autotune", fullgraph=True)
    opened = time.perf_counter() - started
    stages: dict[str, float] = {}
    pipe.encode_prompt = _timed(pipe.encode_prompt, "text", stages, device)
    pipe.vae.decode = _timed(pipe.vae.decode, "decode", stages, device)
    shape = (1, pipe.unet.config.in_channels, *(settings[s] // pipe.vae_scale_factor for s in ("height", "width")))

    def noise(seed: int, batch: int) -> Any:
        each = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed + i)) for i in range(batch)]
        return torch.cat(each).to(getattr(torch, dtype))

    def draw(prompt: str, seed: int, batch: int) -> Drawn:
        stages.clear()
        begin = time.perf_counter()
        images = pipe(prompt, latents=noise(seed, batch), num_images_per_prompt=batch, **settings).images
        seconds = time.perf_counter() - begin
        parts = {**stages, "denoise": seconds - sum(stages.values())}  # and what is around it
        return Drawn(images=np.stack([np.asarray(i) for i in images]), seconds=seconds, stages=parts)

    def latents(prompt: str, seed: int) -> NDArray[np.float32]:
        seen: list[Any] = []

        def take(_pipe: Any, _step: int, _time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            seen.append(tensors["latents"][0].float().cpu().numpy())
            return {}

        pipe(prompt, latents=noise(seed, 1), callback_on_step_end=take, output_type="latent", **settings)
        return np.stack(seen)

    def close() -> None:
        nonlocal pipe
        pipe = None
        if device != "cpu":
            torch.cuda.empty_cache()

    return Contender(name=name, draw=draw, latents=latents, close=close, opened=opened)


def _timed(function: Callable[..., Any], stage: str, stages: dict[str, float], device: str) -> Callable[..., Any]:
    """Time a stage; at its two ends only, the device is waited for."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with _clock(stage, stages, device):
            return function(*args, **kwargs)

    return call


@contextlib.contextmanager
def _clock(stage: str, stages: dict[str, float], device: str) -> Iterator[None]:
    import torch

    wait = (lambda: None) if device == "cpu" else torch.cuda.synchronize
    wait()
    started = time.perf_counter()
    yield
    wait()
    stages[stage] = stages.get(stage, 0.0) + time.perf_counter() - started
