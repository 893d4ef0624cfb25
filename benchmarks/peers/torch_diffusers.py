"""diffusers in torch: ``float32``, ``bfloat16`` (channels last), or ``compiled`` (bfloat16, ``torch.compile``)."""

from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from worker import guided, work


def _tuned(module: Any, variant: str) -> Any:
    if variant != "float32":
        module = module.to(memory_format=torch.channels_last)
    return torch.compile(module) if variant == "compiled" else module


def open_diffusers(job: dict[str, Any]) -> Any:
    torch.set_grad_enabled(False)
    variant = job["variant"]
    dtype = torch.float32 if variant == "float32" else torch.bfloat16
    if "inputs" in job:
        unet = UNet2DConditionModel.from_pretrained(job["checkpoint"], subfolder="unet", torch_dtype=dtype)
        unet = _tuned(unet, variant)
        given = {name: torch.from_numpy(array) for name, array in job["inputs"].items()}
        added = {k: given[v].to(dtype) for k, v in (("text_embeds", "pooled"), ("time_ids", "time_ids")) if v in given}

        def step() -> Any:
            sample, hidden = given["sample"].to(dtype), given["hidden"].to(dtype)
            rows = unet(sample, given["timestep"], hidden, added_cond_kwargs=added or None).sample
            return guided(rows.float().numpy())

        return step
    pipeline = DiffusionPipeline.from_pretrained(job["checkpoint"], torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet, pipeline.vae = _tuned(pipeline.unet, variant), _tuned(pipeline.vae, "float32")
    picture = dict(job["picture"])
    seed = picture.pop("seed")

    def draw() -> Any:
        return np.asarray(pipeline(**picture, generator=torch.Generator("cpu").manual_seed(seed)).images[0])

    return draw


work(open_diffusers)
