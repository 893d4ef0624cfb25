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
        close: releases it.
        opened: seconds that loading took, without imports.

    """

    name: str
    draw: Callable[[str, int, int], Drawn]
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

    return Contender(name=name, draw=draw, close=pipe.close, opened=opened)


def diffusers_pipeline(
    name: str, checkpoint: Path, settings: dict[str, Any], *, device: str, dtype: str, compiled: bool
) -> Contender:
    """Open a checkpoint with diffusers, in channels-last order; compiled as its documentation advises.

    Args:
        name: in tables.
        checkpoint: its folder.
        settings: of a call.
        device: where it runs.
        dtype: of its weights, by torch's name.
        compiled: fuse the projections and compile UNet and decoder with ``max-autotune``.

    """
    import torch
    from diffusers import DiffusionPipeline

    started = time.perf_counter()
    pipe: Any = DiffusionPipeline.from_pretrained(checkpoint, torch_dtype=getattr(torch, dtype)).to(device)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    if compiled:
        pipe.fuse_qkv_projections()
        pipe.unet = torch.compile(pipe.unet, mode="max-autotune", fullgraph=True)
        pipe.vae.decode = torch.compile(pipe.vae.decode, mode="max-autotune", fullgraph=True)
    opened = time.perf_counter() - started
    stages: dict[str, float] = {}
    pipe.encode_prompt = _timed(pipe.encode_prompt, "text", stages, device)
    pipe.vae.decode = _timed(pipe.vae.decode, "decode", stages, device)

    def draw(prompt: str, seed: int, batch: int) -> Drawn:
        stages.clear()
        generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(batch)]
        begin = time.perf_counter()
        images = pipe(prompt, generator=generators, num_images_per_prompt=batch, **settings).images
        seconds = time.perf_counter() - begin
        parts = {**stages, "denoise": seconds - sum(stages.values())}  # and what is around it
        return Drawn(images=np.stack([np.asarray(i) for i in images]), seconds=seconds, stages=parts)

    def close() -> None:
        nonlocal pipe
        pipe = None
        if device != "cpu":
            torch.cuda.empty_cache()

    return Contender(name=name, draw=draw, close=close, opened=opened)


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
