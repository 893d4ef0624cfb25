"""stable-diffusion.cpp, through its Python binding, ``variant`` being the type of the weights.

It makes whole images only: a step is the time between two of its reports of progress, at guidance, where it computes
the two rows one after the other. Of its settings, those are taken that were fastest on AVX512-BF16 for SD 1.5: weights
in bfloat16 (convolutions always are float16), no flash attention (half as fast with it), convolutions by im2col.
"""

import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import stable_diffusion_cpp
from worker import work

_ERROR = 3
_kept: list[Any] = []
"""What must not be collected: the library calls back, and freeing a model that could not be loaded ends the process."""


def _errors() -> list[str]:
    """Collect the errors that the library logs."""
    lines: list[str] = []

    def log(level: int, text: bytes, data: ctypes.c_void_p) -> None:
        line = text.decode(errors="replace").strip()
        print(line, flush=True)
        if level >= _ERROR:
            lines.append(line.partition(" - ")[2] or line)

    callback = stable_diffusion_cpp.sd_log_callback(log)
    stable_diffusion_cpp.sd_set_log_callback(callback, ctypes.c_void_p(0))
    _kept.append(callback)
    return lines


def sigmas(steps: int, spacing: str) -> list[float]:
    """Return the noise levels of diffusers' Euler for ``leading`` (offset 1) or ``trailing`` time steps, and 0."""
    levels = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    if spacing == "leading":
        at = np.arange(steps)[::-1] * (1000 // steps) + 1
    else:
        at = np.round(np.arange(1000, 0, -1000 / steps)).astype(int) - 1
    return [*np.sqrt((1 - levels[at]) / levels[at]).tolist(), 0.0]


def open_sd_cpp(job: dict[str, Any]) -> Callable[[], Any]:
    errors = _errors()
    model = stable_diffusion_cpp.StableDiffusion(
        model_path=f"{job['exported']}/model.safetensors",
        n_threads=job["threads"],
        wtype=job["variant"],
        rng_type="cpu",
        sampler_rng_type="cpu",
        vae_decode_only=True,
        verbose=True,
    )
    _kept.append(model)
    if errors:
        raise RuntimeError(errors[0])
    image = job["image"]
    marks: list[tuple[float, float]] = []

    def draw() -> Any:
        marks.clear()
        images = model.generate_image(
            prompt=image["prompt"],
            negative_prompt=image.get("negative_prompt", ""),
            width=image["width"],
            height=image["height"],
            sample_steps=image["num_inference_steps"],
            sigmas=",".join(map(str, sigmas(image["num_inference_steps"], image.get("spacing", "leading")))),
            cfg_scale=image["guidance_scale"],
            seed=image["seed"],
            sample_method="euler",
            progress_callback=lambda step, steps, seconds: marks.append((time.perf_counter(), time.process_time())),
        )
        return np.asarray(images[0].convert("RGB"))

    def steps() -> Any:
        output = draw()
        # one report before the first step and one after each; the first step allocates
        wall, cpu = np.diff(np.array(marks[-image["num_inference_steps"] :]), axis=0).T.tolist()
        job["timed"] = {"wall": wall, "cpu": cpu, "drew": True}
        return output

    return steps if job.get("inputs") else draw


work(open_sd_cpp)
