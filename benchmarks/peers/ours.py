"""sdengine itself, ``variant`` being ENGINE:PRECISION, and ``:bf16_bundle`` if that is to be taken."""

from typing import Any

import numpy as np
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.engine import Array, run
from sdengine.engines.registry import open_engine
from sdengine.runtime import Pipeline
from worker import work


def _step(job: dict[str, Any], bundle: Bundle, engine: str, precision: str) -> Any:
    given = job["inputs"]
    conditioner = open_engine(bundle, "conditioner", engine=engine, precision=precision).engine
    conditions = run(conditioner, {t.name: given[t.name] for t in conditioner.spec.inputs})
    conditioner.close()
    denoiser = open_engine(bundle, "denoiser", engine=engine, precision=precision).engine
    axes = {"S": 1, "R": 2, "T": 77, "h": given["sample"].shape[2], "w": given["sample"].shape[3]}
    inputs: dict[str, Array] = {t.name: np.zeros(t.resolve(axes), t.dtype) for t in denoiser.spec.inputs} | conditions
    inputs["state"][:, 0] = given["sample"][:1]
    inputs["timestep"][:], inputs["input_scale"][:] = given["timestep"], 1
    inputs["mix"][:] = [[-6.5, 7.5]]
    inputs["update"][:, 0, 5] = 1  # the next latent is the prediction
    if "mask" in inputs:
        inputs["mask"][:] = 1  # drawn everywhere
    outputs: dict[str, Array] = {"next_state": np.empty_like(inputs["state"])}
    once = denoiser.prepare(inputs, outputs)

    def call() -> Any:
        once()
        return outputs["next_state"][0, 0]

    return call


def open_ours(job: dict[str, Any]) -> Any:
    engine, precision, *other = job["variant"].split(":")
    path = job[other[0]] if other else job["bundle"]
    if path is None:
        raise FileNotFoundError("no such bundle was named on the command line")
    if job.get("inputs"):
        return _step(job, Bundle(path), engine, precision)
    pipeline = Pipeline.load(path, engine=engine, precision=precision)

    def draw() -> Any:
        return np.asarray(pipeline(**job["image"]).images[0])

    return draw


work(open_ours)
