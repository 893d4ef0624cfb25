"""optimum-onnx (``onnxruntime``) and optimum-intel (``openvino``); the export is kept beside the environment."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from worker import guided, work


def _class(variant: str, xl: bool) -> Any:
    if variant == "onnxruntime":
        from optimum.onnxruntime import ORTStableDiffusionPipeline, ORTStableDiffusionXLPipeline

        return ORTStableDiffusionXLPipeline if xl else ORTStableDiffusionPipeline
    from optimum.intel import OVStableDiffusionPipeline, OVStableDiffusionXLPipeline

    return OVStableDiffusionXLPipeline if xl else OVStableDiffusionPipeline


def open_optimum(job: dict[str, Any]) -> Any:
    variant, exported = job["variant"], Path(job["exported"])
    kind = _class(variant.split(":")[0], job["xl"])
    lazily = {"compile": False} if variant.startswith("openvino") else {}
    if not (exported / "model_index.json").exists():
        kind.from_pretrained(job["checkpoint"], export=True, **lazily).save_pretrained(exported)
    pipeline = kind.from_pretrained(exported, **lazily)
    if variant.startswith("openvino"):
        size = job["size"]
        if variant.endswith("static"):  # what its documentation recommends where the size is known
            pipeline.reshape(batch_size=1, height=size, width=size, num_images_per_prompt=1)
        pipeline.compile()
    if "inputs" in job:
        given = {name: torch.from_numpy(array) for name, array in job["inputs"].items()}
        unet = pipeline.unet
        added = {k: given[v] for k, v in (("text_embeds", "pooled"), ("time_ids", "time_ids")) if v in given}

        def step() -> Any:
            rows = unet(given["sample"], given["timestep"][:1], given["hidden"], **_added(variant, added))[0]
            return guided(rows)

        return step
    pipeline.set_progress_bar_config(disable=True)
    picture = dict(job["picture"])
    seed = picture.pop("seed")

    def draw() -> Any:
        return np.asarray(pipeline(**picture, generator=torch.Generator("cpu").manual_seed(seed)).images[0])

    return draw


def _added(variant: str, added: dict[str, Any]) -> dict[str, Any]:
    return {"added_cond_kwargs": added} if added else {}


work(open_optimum)
