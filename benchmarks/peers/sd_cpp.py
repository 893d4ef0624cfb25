"""stable-diffusion.cpp, through its Python binding: it draws whole pictures, so a step is timed between two of them."""

import itertools
import time
from typing import Any

import numpy as np
from stable_diffusion_cpp import StableDiffusion
from worker import work


def open_sd_cpp(job: dict[str, Any]) -> Any:
    model = StableDiffusion(
        model_path=job["checkpoint"],
        n_threads=job["threads"],
        diffusion_flash_attn=True,
        rng_type="cpu",
        verbose=False,
    )
    picture = job.get("picture") or {"prompt": "a house by the sea", "num_inference_steps": 2 + job["repeats"]}
    marks: list[float] = []

    def draw() -> Any:
        marks.clear()
        images = model.generate_image(
            prompt=picture["prompt"],
            width=job["size"],
            height=job["size"],
            sample_steps=picture["num_inference_steps"],
            cfg_scale=picture.get("guidance_scale", 7.5),
            seed=picture.get("seed", 0),
            sample_method="euler",
            progress_callback=lambda step, steps, seconds: marks.append(time.perf_counter()),
        )
        return np.asarray(images[0])

    if "picture" in job:
        return draw

    def step() -> Any:
        output = draw()
        job["seconds"] = [b - a for a, b in itertools.pairwise(marks)][-wanted:]
        return output

    job["repeats"], wanted = 1, job["repeats"]
    picture["num_inference_steps"] = 2 + wanted
    return step


work(open_sd_cpp)
