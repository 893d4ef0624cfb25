"""diffusers in torch: ``float32``, ``bfloat16`` (channels last), or ``compiled``.

The last is what was fastest of several ways to compile it: bfloat16, weights in channels-last order, queries, keys and
values in one product, fixed shapes, in inference mode.
"""

from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from worker import guided, work


def _tuned(module: Any, variant: str) -> Any:
    if variant != "float32":
        module = module.to(memory_format=torch.channels_last)
    if variant == "compiled":
        if hasattr(module, "fuse_qkv_projections"):
            module.fuse_qkv_projections()
        module = torch.compile(module, dynamic=False)
    return module


def open_diffusers(job: dict[str, Any]) -> Any:
    variant = job["variant"]
    dtype = torch.float32 if variant == "float32" else torch.bfloat16
    if job.get("inputs"):
        unet = UNet2DConditionModel.from_pretrained(job["checkpoint"], subfolder="unet", torch_dtype=dtype)
        unet = _tuned(unet, variant)
        given = {name: torch.from_numpy(array) for name, array in job["inputs"].items()}
        added = {k: given[v].to(dtype) for k, v in (("text_embeds", "pooled"), ("time_ids", "time_ids")) if v in given}

        @torch.inference_mode()
        def step() -> Any:
            sample, hidden = given["sample"].to(dtype), given["hidden"].to(dtype)
            rows = unet(sample, given["timestep"], hidden, added_cond_kwargs=added or None).sample
            return guided(rows.float().numpy())

        return step
    pipeline = DiffusionPipeline.from_pretrained(job["checkpoint"], torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet, pipeline.vae = _tuned(pipeline.unet, variant), _tuned(pipeline.vae, "float32")
    image = dict(job["image"])
    seed = image.pop("seed")

    @torch.inference_mode()
    def draw() -> Any:
        return np.asarray(pipeline(**image, generator=torch.Generator("cpu").manual_seed(seed)).images[0])

    return draw


work(open_diffusers)
