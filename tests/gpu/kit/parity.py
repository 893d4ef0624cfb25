"""Tiny checkpoints of every family: each task's image on the device, against torch in float32 on the CPU."""

import os
import time
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sdengine.runtime import Pipeline

from ..setting import psnr
from .record import Record
from .setting import Setting

__all__ = ["bundles", "run"]

KINDS = {"sd1": 1, "sdxl": 1, "sd2": 0, "sd_inpaint": 0, "sdxl_inpaint": 0, "sdxl_refiner": 0, "lcm": 0}
"""Kinds of checkpoint, and how many ControlNets their bundles hold."""
DECIBELS = {"fp32": 70.0, "fp16": 30.0, "bf16": 20.0}
"""What an image must agree to with float32 on the CPU: rounding grows over the steps of random networks."""

_SIZE = {"height": 64, "width": 96, "num_inference_steps": 4, "seed": 5, "output_type": "np"}


def bundles(kinds: dict[str, int], folder: Path | None) -> dict[str, "Future[Path]"]:
    """Return tiny bundles, from a folder of them or exported in processes of their own."""
    if folder is not None:
        done: dict[str, Future[Path]] = {kind: Future() for kind in kinds}
        for kind, future in done.items():
            future.set_result(folder / kind)
        return done
    pool = ProcessPoolExecutor(min(8, os.cpu_count() or 1), mp_context=get_context("spawn"))
    made = {kind: pool.submit(_exported, kind, controlnets) for kind, controlnets in kinds.items()}
    pool.shutdown(wait=False)
    return made


def _exported(kind: str, controlnets: int) -> Path:
    from ...bundles import bundle_of

    return bundle_of(kind, controlnets=controlnets, engines=["torch"])


def tasks_of(kind: str, controlnets: int) -> dict[str, dict[str, Any]]:
    """Return the settings of every task that a kind of checkpoint can do."""
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (64, 96, 3), np.uint8))
    hole = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), ((8, 24), (40, 24))))
    inpaint = {"image": picture, "mask_image": hole, "strength": 0.9}
    if "inpaint" in kind:
        return {"inpaint": inpaint}
    if kind == "sdxl_refiner":
        return {"image": {"image": picture, "strength": 0.6}}
    tasks: dict[str, dict[str, Any]] = {
        "text": {},
        "without guidance": {"guidance_scale": 1.0},
        "noise at each step": {"scheduler": "EulerAncestralDiscreteScheduler"},
        "two evaluations a step": {"scheduler": "HeunDiscreteScheduler"},
        "image": {"image": picture, "strength": 0.7},
        "inpaint": inpaint,
        "several": {"num_images_per_prompt": 3},
    }
    if controlnets:
        tasks["controlnet"] = {"control_image": picture}
        tasks["controlnet and image"] = {"control_image": picture, "image": picture, "strength": 0.7}
        tasks["controlnet and inpaint"] = {"control_image": picture, **inpaint}
    return tasks


def run(setting: Setting, record: Record) -> None:
    """Draw every task in each precision and compare."""
    kinds = dict(KINDS) if setting.scale == "full" else {"sd1": 1}
    for kind in list(kinds):
        if setting.tiny is not None and not (setting.tiny / kind).is_dir():
            record.skipped(kind, "the folder of tiny bundles has none")
            del kinds[kind]
    precisions = ("fp32", "bf16", "fp16") if setting.gpu else ("fp32",)
    for kind, future in bundles(kinds, setting.tiny).items():
        path = future.result()
        started = time.perf_counter()
        with ExitStack() as stack:
            plain = stack.enter_context(Pipeline.load(path, engine="torch", device="cpu", precision="fp32"))
            pipes = {
                precision: stack.enter_context(
                    Pipeline.load(path, engine="torch", device=setting.device, precision=precision)
                )
                for precision in precisions
            }
            for task, given in tasks_of(kind, kinds[kind]).items():
                request: dict[str, Any] = {"prompt": "a red cube", **_SIZE, **given}
                reference = plain(**request).images
                for precision, pipe in pipes.items():
                    with record.check("an image is the CPU's", kind=kind, task=task, precision=precision) as figures:
                        images = [pipe(**request).images for _ in range(3)]  # plain, captured, replayed
                        figures["psnr"] = round(min(psnr(image, reference) for image in images), 1)
                        figures["bit_equal_when_replayed"] = bool(np.array_equal(images[0], images[2]))
                        assert figures["psnr"] >= DECIBELS[precision], figures["psnr"]
        record.figure("seconds of a kind", kind=kind, seconds=round(time.perf_counter() - started, 1))
