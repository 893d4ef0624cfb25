"""The `openai` client works unchanged against a real server: images, edits, streams, errors."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from PIL import Image
from sdengine.runtime import Pipeline
from sdengine.runtime.decode.image_file import read_record

from ...bundles import bundle_of
from ..parity.oracle import picture
from .conftest import Server

ONE_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"  # a PNG
SMALL: dict[str, Any] = {"num_inference_steps": 3, "seed": 5}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as one:
        yield one


@pytest.fixture(scope="module")
def pipe() -> Iterator[Pipeline]:
    with Pipeline.load(bundle_of("sd1"), engine="onnxruntime", threads=1) as one:
        yield one


def opened(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


def file_of(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def same(text: str | None, image: Image.Image) -> bool:
    return np.array_equal(np.asarray(opened(text)), np.asarray(image))


def test_images_are_those_that_the_pipeline_draws(client: openai.OpenAI, pipe: Pipeline) -> None:
    expected = pipe("a house", num_images_per_prompt=2, height=48, width=72, negative_prompt="rain", **SMALL)
    extra = {**SMALL, "negative_prompt": "rain"}
    answer = client.images.generate(
        prompt="a house", n=2, size="72x48", quality="high", user="me", model=None, extra_body=extra
    )
    assert [entry.url for entry in answer.data or ()] == [None, None]
    assert all(same(entry.b64_json, image) for entry, image in zip(answer.data or (), expected.images, strict=True))
    assert (answer.size, answer.output_format, answer.background) == ("72x48", "png", "opaque")
    more = answer.model_extra or {}
    assert more["seeds"] == [5, 6] and more["warnings"][:2] == ["quality has no effect here", "user has no effect here"]
    assert more["timings_ms"]["total"] >= more["timings_ms"]["denoise"] > 0
    assert more["engines"]["denoiser"] == "onnxruntime"
    assert answer._request_id == more["id"]


def test_formats(client: openai.OpenAI, tmp_path: Any) -> None:
    answer = client.images.generate(
        prompt="a house", output_format="webp", output_compression=50, response_format="url", extra_body=SMALL
    )
    ((entry,), start) = (answer.data or (), "data:image/webp;base64,")
    assert entry.url is not None and entry.url.startswith(start)
    (tmp_path / "a.webp").write_bytes(base64.b64decode(entry.url.removeprefix(start)))
    record = read_record(tmp_path / "a.webp")
    assert (record.prompt, record.seed, record.settings["num_inference_steps"]) == ("a house", 5, 3)


def test_streams(client: openai.OpenAI, pipe: Pipeline) -> None:
    expected = pipe("a house", height=48, width=72, num_inference_steps=6, seed=5).images[0]
    extra = {"num_inference_steps": 6, "seed": 5}
    events = list(
        client.images.generate(prompt="a house", size="72x48", stream=True, partial_images=2, extra_body=extra)
    )
    assert [type(one).__name__ for one in events] == ["ImageGenPartialImageEvent"] * 2 + ["ImageGenCompletedEvent"]
    assert [getattr(one, "partial_image_index", None) for one in events] == [0, 1, None]
    assert all(opened(one.b64_json).size == (72, 48) and one.size == "72x48" for one in events)
    assert same(events[-1].b64_json, expected)
    more = events[-1].model_extra or {}
    assert more["seeds"] == [5]
    assert more["timings_ms"]["total"] >= more["timings_ms"]["denoise"] > 0
    several = client.images.generate(prompt="a house", n=3, stream=True, extra_body=SMALL)
    assert sorted((one.model_extra or {})["index"] for one in several) == [0, 1, 2]


def test_a_stream_of_urls_has_what_the_client_looks_for(client: openai.OpenAI) -> None:
    (event,) = client.images.generate(prompt="a house", stream=True, response_format="url", extra_body=SMALL)
    assert opened(event.b64_json).format == "PNG"
    assert (event.model_extra or {})["url"] == f"data:image/png;base64,{event.b64_json}"


def test_an_error_in_a_stream_is_raised(client: openai.OpenAI) -> None:
    extra = {"num_inference_steps": 3, "guidance_scale": 3e38, "seed": 5}
    with pytest.raises(openai.APIError, match="NaN"):
        list(client.images.generate(prompt="a house", stream=True, extra_body=extra))
    with pytest.raises(openai.UnprocessableEntityError, match="NaN"):
        client.images.generate(prompt="a house", extra_body=extra)


def test_edits(client: openai.OpenAI, pipe: Pipeline) -> None:
    image, hole = picture(48, 72, 1), picture(48, 72, 0, hole=True).point(lambda v: 255 if v > 127 else 0)
    cut = image.convert("RGBA")
    cut.putalpha(hole.point(lambda v: 255 - v))
    over = pipe("a house", image=image, strength=0.6, **SMALL).images[0]
    anew = pipe("a house", image=image, mask_image=hole, strength=0.9, **SMALL).images[0]
    answer = client.images.edit(image=file_of(image), prompt="a house", extra_body={**SMALL, "strength": 0.6})
    assert same((answer.data or [])[0].b64_json, over)
    extra = {**SMALL, "strength": 0.9}
    masked = client.images.edit(image=[file_of(image)], mask=file_of(cut), prompt="a house", extra_body=extra)
    assert same((masked.data or [])[0].b64_json, anew)
    own = client.images.edit(image=file_of(cut), prompt="a house", extra_body=extra)
    assert same((own.data or [])[0].b64_json, anew)
    assert "transparent" in str((own.model_extra or {})["warnings"])
    events = list(client.images.edit(image=file_of(image), prompt="a", stream=True, partial_images=1))
    assert [one.type for one in events] == ["image_edit.partial_image", "image_edit.completed"]


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"size": "100x100"}, "size", "nearest that works is 96"),
        ({"size": "big"}, "size", "WIDTHxHEIGHT"),
        ({"n": 11}, "n", "10 is the most"),
        ({"extra_body": {"num_inference_step": 3}}, "num_inference_step", "did you mean 'num_inference_steps'"),
        ({"extra_body": {"num_inference_steps": 201}}, "num_inference_steps", "200 is the most"),
        ({"extra_body": {"guidance_scale": "much"}}, "guidance_scale", "finite number"),
        ({"extra_body": {"seed": "x"}}, "seed", "seed"),
        ({"extra_body": {"seed": []}}, "seed", "0 given"),
        ({"extra_body": {"scheduler": "oiler"}}, "scheduler", "oiler"),
        ({"extra_body": {"scheduler": "ddim", "scheduler_config": {"x": 1}}}, "scheduler_config", "no option 'x'"),
        ({"extra_body": {"control_image": ONE_PIXEL}}, "control_image", "no ControlNet"),
        ({"extra_body": {"scheduler_config": "/etc/passwd"}}, "scheduler_config", "object"),
        ({"extra_body": {"image": "/etc/passwd"}}, "image", "base64"),
        ({"extra_body": {"image": "http://127.0.0.1/"}}, "image", "not fetched"),
        ({"extra_body": {"callback_on_step_end": "x"}}, "callback_on_step_end", "stream"),
        ({"extra_body": {"images_and_prompts": ["/etc/passwd"]}}, "images_and_prompts", "not supported"),
        ({"extra_body": {"loras": ["/etc/passwd"]}}, "loras", "--lora-folder"),
        ({"extra_body": {"loras": [["a", 99]]}}, "loras", "strength up to 10"),
        ({"extra_body": {"cross_attention_kwargs": {"x": 1}}}, "cross_attention_kwargs", "scale"),
        ({"extra_body": {"prompt_2": "x"}}, "prompt_2", "prompt_2"),
        ({"background": "transparent"}, "background", "opaque"),
        ({"output_format": "gif"}, "output_format", "png, jpeg, webp"),
        ({"output_compression": 5}, "output_compression", "png"),
        ({"partial_images": 1}, "partial_images", "stream"),
    ],
)
def test_what_cannot_be_obeyed_is_refused_by_name(
    client: openai.OpenAI, fields: dict[str, Any], param: str | None, message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as refused:
        client.images.generate(prompt="a house", **fields)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list()
    assert client.models.retrieve(model.id) == model
    assert (model.model_extra or {})["sizes"]["multiple_of"] == 8
    for ask in (
        lambda: client.models.retrieve("other"),
        lambda: client.images.generate(prompt="a", model="other"),
    ):
        with pytest.raises(openai.NotFoundError, match="does not exist") as missing:
            ask()
        assert missing.value.code == "model_not_found"


def test_nulls_are_not_given(server: Server) -> None:
    from sdengine.runtime.serve.body_fields import ALL_FIELDS

    body = {**dict.fromkeys(ALL_FIELDS), "prompt": "a house", "num_inference_steps": 2}
    assert server.draw(**body).status_code == 200


def test_progress_is_told_where_it_is_asked_for(server: Server) -> None:
    import httpx

    body = {"prompt": "a house", "stream": True, "progress": True, "num_inference_steps": 3}
    with httpx.stream("POST", f"{server.url}/v1/images/generations", json=body, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-2] == {"type": "image_generation.progress", "index": 0, "step": 3, "steps": 3}
    assert events[-1]["type"] == "image_generation.completed"
