"""A family and a condition are each one record: adding one takes this file, and a line where they are listed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from sdengine.engines.bundle import Bundle
from sdengine.engines.families import FAMILIES, Defaults, Family
from sdengine.engines.families.stable_diffusion import SD1
from sdengine.runtime import Pipeline
from sdengine.runtime.conditioning import CONDITIONS, Part, Preparation
from sdengine.runtime.denoise.sample import DENOISER
from sdengine.runtime.resolve import Job

from ..bundles import bundle_of


class Fading:
    """A condition that gives the second half of the evaluations no guidance."""

    def components(self, job: Job, bundle: Bundle) -> tuple[str, ...]:
        return ()

    def prepare(self, preparation: Preparation) -> list[Part]:
        mix = preparation.guidance.mix.copy()
        mix[len(mix) // 2 :] = [0, 1]
        return [Part(numbers={DENOISER: {"mix": mix}})] * preparation.job.images


TOY: Family = replace(
    SD1,
    name="toy",
    label="Toy",
    conditions=(*SD1.conditions, "fading"),
    defaults={**SD1.defaults, ("text", False): Defaults(guidance_scale=3.0, num_inference_steps=6)},
    own_arguments=("aesthetic_score",),
)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    monkeypatch.setitem(CONDITIONS, "fading", Fading())
    monkeypatch.setitem(FAMILIES, TOY.name, TOY)
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1) as pipe:
        pipe.bundle.manifest = msgspec.structs.replace(pipe.bundle.manifest, family="toy")
        yield pipe


SETTINGS: dict[str, Any] = {
    "prompt": "a house",
    "height": 48,
    "width": 72,
    "seed": 1,
    "scheduler": "ddim",
    "output_type": "np",
}


def test_a_family_brings_its_defaults_and_arguments(pipe: Pipeline) -> None:
    result = pipe(**SETTINGS, aesthetic_score=6.5)
    assert (result.settings["guidance_scale"], result.settings["num_inference_steps"]) == (3.0, 6)


def test_a_condition_reaches_the_denoiser_without_the_loop_knowing_it(pipe: Pipeline) -> None:
    faded = pipe(**SETTINGS, callback_on_step_end=None)
    seen: list[Any] = []
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1) as plain:
        settings = {**SETTINGS, "guidance_scale": 3.0, "num_inference_steps": 6}
        guided = plain(**settings, callback_on_step_end=lambda *given: seen.append(given[3]["latents"]) or {})
    found: list[Any] = []
    again = pipe(**SETTINGS, callback_on_step_end=lambda *given: found.append(given[3]["latents"]) or {})
    assert np.array_equal(again.images, faded.images)
    same = [np.array_equal(a, b) for a, b in zip(seen, found, strict=True)]
    assert same == [True] * 3 + [False] * 3, "as with guidance for three evaluations, and then not"
    assert not np.array_equal(guided.images, faded.images)
