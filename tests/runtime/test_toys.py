"""A family, a condition and an engine are records: adding one takes a file, and a line where they are listed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import UsageError
from sdengine.engines.families import FAMILIES, Defaults, Family
from sdengine.engines.families.stable_diffusion import SD1
from sdengine.engines.memory import HOST, Buffer
from sdengine.engines.registry import ENGINES, EngineKind, open_engine
from sdengine.export.plan import precisions_for
from sdengine.runtime import Pipeline
from sdengine.runtime.conditioning import CONDITIONS, Part, Preparation
from sdengine.runtime.denoise.sample import DENOISER
from sdengine.runtime.request.job import Job

from ..bundles import bundle_of


class ToyEngine:
    """Runs what torch runs."""

    name, device, memory, notes = "toy", "a toy's", HOST, list[str]()

    def __init__(self, bundle: Bundle, component: str, *, precision: str) -> None:
        self.precision = precision
        self._inner = open_engine(bundle, component, engine="torch", precision=precision).engine
        self.spec = self._inner.spec

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        return self._inner.prepare(inputs, outputs)

    def close(self) -> None:
        self._inner.close()


def unavailable() -> str | None:
    """As of an engine's module."""
    return None


TOY_ENGINE = EngineKind(where=__name__, opens="ToyEngine", precisions=("fp32",), options=(), devices=("cpu",))


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


def test_an_engine_is_exported_for_and_drawn_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "toy", TOY_ENGINE)
    assert precisions_for(["toy"], "auto") == ("fp32",)
    with Pipeline.load(bundle_of("sd1"), engine="toy") as pipe:
        result = pipe(**SETTINGS, num_inference_steps=2)
    with Pipeline.load(bundle_of("sd1"), engine="torch", precision="fp32") as pipe:
        assert np.array_equal(result.images, pipe(**SETTINGS, num_inference_steps=2).images)
    assert set(result.engines.values()) == {"toy"}
    with pytest.raises(UsageError, match="toy has no option threads"):
        Pipeline.load(bundle_of("sd1"), engine="toy", threads=1)
