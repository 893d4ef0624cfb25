"""Whatever is sent, the answer is an image or an error that the API's description knows; never a 500."""

import contextlib
import os
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case
from schemathesis.generation import GenerationMode
from sdengine.runtime.serve.body_fields import ALL_FIELDS

from .conftest import Server

EXAMPLES = int(os.environ.get("SDENGINE_FUZZ", "30"))
"""Requests of each kind; 30 in the suite, thousands by hand."""
KNOWN = {200, 400, 401, 404, 405, 408, 413, 415, 422, 429, 503, 504}
PROFILE = {
    "deadline": None,
    "database": None,
    "derandomize": "SDENGINE_FUZZ" not in os.environ,
    "phases": [Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


def check(answer: Any) -> None:
    assert answer.status_code in KNOWN, (answer.status_code, answer.text)
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.fixture(autouse=True)
def sound(server: Server) -> Any:
    """The server draws at the end, and has logged no error."""
    yield
    assert server.draw(prompt="a house", num_inference_steps=2).status_code == 200
    assert not [line for line in server.log() if line["level"] == "error"]


@pytest.mark.parametrize("mode", GenerationMode)
def test_requests_made_of_the_description(server: Server, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(max_examples=EXAMPLES if operation.method == "post" else 3, **PROFILE)
        @given(case=operation.as_strategy(generation_mode=mode))
        def fuzz(case: Case) -> None:
            check(case.call(base_url=server.url, timeout=120))

        with contextlib.suppress(Unsatisfiable):  # a route without parameters cannot be called in a wrong way
            fuzz()


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(max_size=9)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
)
LIKELY_NUMBERS: list[Any] = [0, 1, 2, 3.0, -1, 0.5, 1e9, 1e300]
LIKELY_TEXTS: list[Any] = ["", "a", "64x48", "8x8", "999999x8", "euler", "DDIM", "dpmpp_2m_sde", "cuda", "chunk"]
LIKELY_LISTS: list[Any] = [[1.0, 0.5], [999, 500, 1], [5.0, 1.0, 0.0], [0, 0], [64, 48], [], [[]], [[[0.0]]]]
LIKELY_OBJECTS: list[Any] = [
    {},
    {"use_karras_sigmas": True},
    {"beta_start": 5},
    {"num_train_timesteps": 0},
    {"prediction_type": "v_prediction"},
    {"_class_name": "X"},
]
LIKELY = st.sampled_from([*LIKELY_NUMBERS, *LIKELY_TEXTS, *LIKELY_LISTS, *LIKELY_OBJECTS])


@settings(max_examples=2 * EXAMPLES, **PROFILE)
@given(fields=st.dictionaries(st.sampled_from(ALL_FIELDS), LIKELY | VALUES, min_size=1, max_size=3))
def test_sound_requests_with_a_few_fields_of_any_value(server: Server, fields: dict[str, Any]) -> None:
    body = {"prompt": "a house", "num_inference_steps": 2, "size": "64x48", **fields}
    check(httpx.post(f"{server.url}/v1/images/generations", json=body, timeout=120))
