"""Samples of random requests that join, leave and come back at random moments come out as alone, bit for bit."""

import random
from typing import Any

import numpy as np
import pytest
from sdengine.runtime import Pipeline
from sdengine.runtime.denoise import Sample

from ..parity.oracle import ours, picture

IMAGE, MASK = picture(48, 72, 1), picture(48, 72, 0, hole=True)
SOLVERS = ["euler", "heun", "dpm2_a", "euler_a", "dpmpp_2m", "dpmpp_sde", "ddpm", "ddim", "unipc", "lcm", "pndm", "lms"]
TASKS: list[dict[str, Any]] = [
    {},
    {"image": IMAGE, "strength": 0.6},
    {"image": IMAGE, "mask_image": MASK, "strength": 1.0},
]
CONTROLS: list[dict[str, Any]] = [{}, {"control_guidance_end": 0.5}, {"control_guidance_start": 0.4}]


def _request(chance: random.Random, *, controlled: bool) -> dict[str, Any]:
    control = {"control_image": IMAGE, **chance.choice(CONTROLS)} if controlled else {}
    return {
        "prompt": chance.choice(["a cat", "a house by the sea", ""]),
        "num_inference_steps": chance.choice([4, 6, 9, 13]),
        "scheduler": chance.choice(SOLVERS),
        "guidance_scale": chance.choice([1.0, 5.0, 7.5]),
        "guidance_rescale": chance.choice([0.0, 0.7]),
        "seed": chance.randrange(1000),
        "num_images_per_prompt": chance.choice([1, 1, 3]),
        "height": 48,
        "width": 72,
        **chance.choice(TASKS),
        **control,
    }


def _advance_at_random(pipe: Pipeline, samples: list[Sample], chance: random.Random) -> None:
    """Until each sample is finished, or has been dropped on the way."""
    outside = list(samples)
    with pipe.batch(samples[0], slots=3) as one, pipe.batch(samples[0], slots=2) as other:
        while outside or one.active or other.active:
            batch, action = chance.choice([one, other]), chance.random()
            if action < 0.4 and outside and batch.fits(sample := chance.choice(outside)):
                batch.put(sample)
                outside.remove(sample)
            elif action < 0.5 and batch.active:
                batch.take(sample := chance.choice(batch.active))
                outside += [sample] if chance.random() < 0.8 else []
            elif batch.active:
                batch.step()


@pytest.mark.parametrize(("kind", "nets"), [("sd1", 0), ("sdxl", 0), ("sd1", 1)])
def test_each_sample_comes_out_as_alone(kind: str, nets: int) -> None:
    pipe, chance = ours(kind, nets), random.Random(12)
    requests = [_request(chance, controlled=bool(nets)) for _ in range(8)]
    samples = [(request, i, one) for request in requests for i, one in enumerate(pipe.prepare(**request))]
    chance.shuffle(samples)
    _advance_at_random(pipe, [one for *_, one in samples], chance)
    assert {one.finished for *_, one in samples} == {True, False}
    for request, i, one in samples:
        alone = pipe.prepare(**request)[i]
        with pipe.batch(alone) as batch:
            batch.put(alone)
            while alone.position < one.position:
                batch.step()
            latent = alone.latent
        assert np.array_equal(one.latent, latent), request
