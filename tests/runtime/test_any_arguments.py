"""Whatever a caller passes, the answer is an image or a UsageError that names the argument, before drawing."""

import contextlib
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from sdengine.engines.bundle.bundle import Bundle
from sdengine.engines.errors import UsageError
from sdengine.runtime import Pipeline
from sdengine.runtime.request.request import Request
from sdengine.runtime.request.resolve import resolve

from ..bundles import bundle_of

NAN = float("nan")
LATENTS = (1, 4, 8, 8)
EMBEDS = (1, 77, 32)


def _array(shape: tuple[int, ...], value: complex, dtype: type = np.float32) -> np.ndarray:
    return np.full(shape, value, dtype)


REFUSED: dict[str, list[Any]] = {
    "latents": [
        "x",
        [[1]],
        np.array([object()]),
        _array(LATENTS, NAN),
        _array(LATENTS, 1e39, np.float64),
        _array(LATENTS, 1j, np.complex64),
        _array((1, 4, 4, 4), 0),
        _array((0, 4, 8, 8), 0),
        {"a": 1},
    ],
    "image": [
        5,
        object(),
        "/nonexistent.png",
        "/",
        _array(LATENTS, NAN),
        _array((64, 64, 2), 0),
        _array((64, 64, 3), NAN),
        Image.new("RGB", (0, 0)),
        [],
        [None],
    ],
    "prompt_embeds": ["x", _array(EMBEDS, NAN), _array(EMBEDS, 1j, np.complex64), _array((0, 77, 32), 0)],
    "sigmas": ["abc", [], [NAN], [float("inf"), 1], 5, [1] * 20_000],
    "timesteps": ["x", [1e400], [5, 5], [-1], [10**9], 5],
    "scheduler": [5, "nope", b"x"],
    "scheduler_config": [
        5,
        {"steps_offset": 10**6},
        {"num_train_timesteps": 10**12},
        {"num_train_timesteps": -5},
        {"beta_start": NAN},
        {"beta_start": "x"},
        {5: 5},
        {"unheard_of": 1},
    ],
    "eta": [None, "x", NAN, -1, 5, 10**400],
    "callback_on_step_end": [5, "x"],
    "callback_on_step_end_tensor_inputs": [5, ["x"], [[]], None],
    "original_size": [(10**400, 1), (-5, 1), 5, (1,), ("a", "b"), (NAN, 1)],
    "target_size": [(-1, 64), "64"],
    "clip_skip": [-1, 99, "x", 1.5, True, 10**400],
    "watermark": [5, "x"],
    "guess_mode": [5, None],
    "weighting": ["x", None],
    "num_images_per_prompt": [10**12, 0, -1, "3", 2.5, True, None, 10**400],
    "num_inference_steps": [0, 10**9, 10**400, "x", NAN],
    "guidance_scale": [NAN, float("inf"), "x", 10**400],
    "guidance_rescale": [NAN, -5, 2],
    "seed": [2**64, "x", 1.5, [], True],
    "generator": [5],
    "height": [10**30, -8, "64", True, NAN],
    "width": [0, 7, []],
    "prompt": [5, [], ["a", 5], b"x", "\ud800", None, ["a"] * 10**5],
    "negative_prompt": [5, ["a", "b"]],
    "output_type": ["jpg", 5],
    "rng": ["x", 5, None],
    "long_prompt": ["x", 5],
    "strength": [NAN, "x", -1],
    "denoising_end": [NAN, "x", 2, -1],
    "denoising_start": [2],
    "control_image": [Image.new("RGB", (64, 64))],
    "controlnet_conditioning_scale": ["x", NAN],
    "control_guidance_start": ["x", NAN],
    "aesthetic_score": ["x", NAN],
    "negative_aesthetic_score": [10**400],
    "unheard_of": [1],
    "": [1],
}


@pytest.fixture(scope="module")
def pipeline() -> Any:
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime") as opened:
        yield opened


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_cannot_be_is_refused(pipeline: Pipeline, name: str, value: Any) -> None:
    given: dict[str, Any] = {"prompt": "a cat", "num_inference_steps": 2, "height": 64, "width": 64, name: value}
    if name == "image":
        del given["height"], given["width"]
    with pytest.raises(UsageError) as caught:
        pipeline(**given)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "returned", [5, "x", [1], {"latents": "x"}, {"latents": _array(LATENTS, NAN)}, {"unheard_of": 1}]
)
def test_what_a_callback_may_not_return(pipeline: Pipeline, returned: Any) -> None:
    with pytest.raises(UsageError, match="callback_on_step_end returned"):
        pipeline("a", num_inference_steps=2, height=64, width=64, callback_on_step_end=lambda *given: returned)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 2**31, 2**63, 2**64]),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.sampled_from(
        ["pil", "np", "latent", "cpu", "cuda", "chunk", "ddim", "euler", np.float32(2), np.int64(3), np.bool_(True)]
    ),
)
ARRAYS = st.builds(
    lambda shape, value, dtype: np.full(shape, value, dtype),
    st.lists(st.integers(0, 9), max_size=5).map(tuple),
    st.sampled_from([0, 1, NAN, -6e4]),
    st.sampled_from([np.float16, np.float32, np.float64, np.complex64]),
)
VALUES = st.one_of(
    SCALARS,
    ARRAYS,
    st.lists(SCALARS, max_size=4),
    st.tuples(SCALARS, SCALARS),
    st.dictionaries(st.text(max_size=5), SCALARS, max_size=2),
)
NAMES = st.sampled_from(sorted(Request.__dataclass_fields__))


def _resolved(bundle: Bundle, asked: dict[str, Any]) -> None:
    with contextlib.suppress(UsageError):
        resolve(Request.from_settings({"prompt": "a cat", "height": 64, "width": 64} | asked), bundle)


@seed(20)
@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_request(asked: dict[str, Any]) -> None:
    _resolved(Bundle(bundle_of("sdxl")), asked)


@pytest.mark.slow
@seed(21)
@settings(max_examples=10_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_ten_thousand_requests(asked: dict[str, Any]) -> None:
    _resolved(Bundle(bundle_of("sdxl")), asked)


@pytest.mark.slow
def test_a_thousand_requests_drawn(pipeline: Pipeline) -> None:
    """Of valid arguments and invalid ones, mixed: memory is not what this looks at, errors are."""
    numbers = random.Random(4)
    pairs = [(name, value) for name, values in REFUSED.items() for value in values]
    drawn = 0
    for i in range(1000):
        given: dict[str, Any] = {"prompt": f"a {i}", "num_inference_steps": 1, "height": 64, "width": 64, "seed": i}
        if numbers.random() < 0.7:
            name, value = numbers.choice(pairs)
            given[name] = value
        try:
            pipeline(**given)
            drawn += 1
        except UsageError:
            continue
    assert drawn > 200
