"""Samples that join and leave a batch on a GPU: launches stay captured, and pictures are those of each alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sdengine.runtime import Pipeline

from .counts import count

SIZE = {"height": 64, "width": 96}
REQUESTS: list[dict[str, Any]] = [
    {"prompt": "a red cube", "num_inference_steps": 12, "scheduler": "unipc", "seed": 1},
    {"prompt": "a house", "num_inference_steps": 4, "scheduler": "euler_a", "seed": 2},
]


def _alone(pipe: Pipeline) -> list[Any]:
    return [pipe(**request, **SIZE, output_type="latent").latents[0] for request in REQUESTS]


def _together(pipe: Pipeline) -> list[Any]:
    """The short one joins after three evaluations of the long one and leaves before its end."""
    samples = [pipe.prepare(**request, **SIZE)[0] for request in REQUESTS]
    with pipe.batch(samples[0], slots=2) as batch:
        batch.put(samples[0])
        for _ in range(3):
            batch.step()
        batch.put(samples[1])
        while batch.active:
            batch.step()
    return [sample.latent for sample in samples]


@pytest.mark.parametrize("cuda_graph", ["step", "off", "loop"])
def test_samples_that_join_and_leave_come_out_as_alone(bundle: Path, cuda_graph: str) -> None:
    with Pipeline.load(bundle, engine="onnxruntime", threads=1) as pipe:
        expected = _alone(pipe)
    with Pipeline.load(bundle, engine="tensorrt", cuda_graph=cuda_graph) as pipe:
        for found in (_alone(pipe), _together(pipe)):
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_buffers_stay_where_they_are(bundle: Path) -> None:
    """What was captured for a number of samples is replayed when there are as many again."""
    with Pipeline.load(bundle, engine="tensorrt", cuda_graph="step") as pipe:
        sample = pipe.prepare(**REQUESTS[0], **SIZE)[0]
        with pipe.batch(sample, slots=2) as batch:
            for turn in range(3):
                samples = [pipe.prepare(**request, **SIZE)[0] for request in REQUESTS]
                captures, launches = count("captures"), count("launches")
                batch.put(samples[0])
                for _ in range(4):
                    batch.step()
                batch.put(samples[1])
                while batch.active:
                    batch.step()
                made = count("captures") - captures, count("launches") - launches
                assert made == ((0, 12) if turn else (4, made[1])), "two directions of the state, one sample and two"
