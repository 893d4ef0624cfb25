"""optimum-onnx (``onnxruntime``) and optimum-intel (``openvino``, or ``openvino:static`` with a fixed size)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from worker import guided, work

if find_spec("optimum.intel"):  # each environment has one of them
    from optimum.intel import OVStableDiffusionPipeline as Pipeline
    from optimum.intel import OVStableDiffusionXLPipeline as PipelineXL
else:
    from optimum.onnxruntime import ORTStableDiffusionPipeline as Pipeline
    from optimum.onnxruntime import ORTStableDiffusionXLPipeline as PipelineXL


def _class(job: dict[str, Any]) -> Any:
    return PipelineXL if job["xl"] else Pipeline


def export_optimum(job: dict[str, Any], folder: Path) -> None:
    if job["variant"] == "onnxruntime":  # straight into the folder: pipelines would be copied, and opened before
        from optimum.exporters.onnx import main_export

        options = {"task": "text-to-image", "library_name": "diffusers", "do_validation": False}
        main_export(job["checkpoint"], folder, no_post_process=True, **options)
        return
    # by default, 8-bit integers would be made of the weights of a network as large as SDXL's
    options = {"export": True, "compile": False, "load_in_8bit": False}
    _class(job).from_pretrained(job["checkpoint"], **options).save_pretrained(folder)


def open_optimum(job: dict[str, Any]) -> Any:
    variant = job["variant"]
    lazily = {"compile": False} if variant.startswith("openvino") else {}
    pipeline = _class(job).from_pretrained(job["exported"], **lazily)
    size = job["size"]
    if variant.endswith("static"):  # what its documentation recommends where the size is known
        pipeline.reshape(batch_size=1, height=size, width=size, num_images_per_prompt=1)
    if job.get("inputs"):
        if variant.startswith("openvino"):
            pipeline.unet.compile()
        given = {name: torch.from_numpy(array) for name, array in job["inputs"].items()}
        added = {k: given[v] for k, v in (("text_embeds", "pooled"), ("time_ids", "time_ids")) if v in given}
        options = {"added_cond_kwargs": added} if added else {}

        def step() -> Any:
            return guided(pipeline.unet(given["sample"], given["timestep"][0], given["hidden"], **options)[0])

        return step
    if variant.startswith("openvino"):
        pipeline.compile()
    pipeline.set_progress_bar_config(disable=True)
    image = dict(job["image"])
    seed = image.pop("seed")

    def draw() -> Any:
        return np.asarray(pipeline(**image, generator=torch.Generator("cpu").manual_seed(seed)).images[0])

    return draw


work(open_optimum, export_optimum)
