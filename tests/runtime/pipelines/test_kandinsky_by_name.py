"""Kandinsky's combined pipelines by diffusers' names draw what the pipeline draws."""

from typing import Any

import numpy as np
from sdengine.runtime.pipelines import AutoPipelineForImage2Image, AutoPipelineForText2Image, DiffusionPipeline

from ...bundles import bundle_of, checkpoint_of
from ..parity.oracle import ours, picture


def test_both_stages_in_one_call() -> None:
    settings: dict[str, Any] = {"num_inference_steps": 3, "height": 64, "width": 64, "seed": 1, "output_type": "np"}
    prior = {"prior_guidance_scale": 1.0, "prior_num_inference_steps": 4}
    pipe = AutoPipelineForText2Image.from_pretrained(bundle_of("kandinsky"))
    expected = ours("kandinsky")(prompt="a cat", **prior, **settings).images
    np.testing.assert_allclose(pipe("a cat", **prior, **settings).images, expected, atol=1e-5)
    again = AutoPipelineForImage2Image.from_pipe(pipe)
    start = {"image": picture(64, 64), "strength": 0.6}
    expected = ours("kandinsky")(prompt="a cat", **start, **settings).images
    np.testing.assert_allclose(again("a cat", **start, **settings).images, expected, atol=1e-5)


def test_a_decoders_checkpoint_is_opened_as_the_combined_pipeline() -> None:
    made = DiffusionPipeline.from_pretrained(checkpoint_of("kandinsky"), prior=checkpoint_of("kandinsky_prior"))
    assert type(made).__name__ == "KandinskyV22CombinedPipeline"
    assert made.scheduler.config["num_train_timesteps"] == 1000
