"""Embeddings against diffusers' encode_prompt, for every family."""

from typing import Any

import numpy as np
import pytest
import torch
from sdengine.engines.errors import UsageError
from sdengine.engines.families import FAMILIES
from sdengine.runtime.prompt import EncodedPrompts, PromptRequest, encode_prompts

from .networks import refiner_pipeline, sd_pipeline, sdxl_pipeline, text_encoders

LONG = "a photograph of an astronaut riding a horse in the jungle, highly detailed digital art, " * 3


@pytest.fixture(scope="module")
def sd() -> Any:
    return sd_pipeline()


@pytest.fixture(scope="module")
def sdxl() -> Any:
    return sdxl_pipeline()


@pytest.fixture(scope="module")
def refiner() -> Any:
    return refiner_pipeline()


def ours(pipeline: Any, family: str, *, guidance: bool = True, **request: Any) -> EncodedPrompts:
    zeros = pipeline.config.get("force_zeros_for_empty_prompt", False)
    return encode_prompts(
        text_encoders(pipeline),
        PromptRequest(**request),
        family=FAMILIES[family].text,
        guidance=guidance,
        force_zeros_for_empty_prompt=zeros,
    )


def same(mine: np.ndarray | None, theirs: torch.Tensor | None) -> None:
    assert mine is not None and theirs is not None
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)


REQUESTS: list[dict[str, Any]] = [
    {"prompt": "a cat on the table"},
    {"prompt": ""},
    {"prompt": ["a cat", "a small red house by the sea"], "negative_prompt": ["blurry", "low quality"]},
    {"prompt": "a cat", "negative_prompt": "low quality, blurry"},
    {"prompt": "a cat", "negative_prompt": ""},
    {"prompt": "a cat!", "clip_skip": 1, "negative_prompt": "blurry"},
    {"prompt": "a cat", "clip_skip": 2},
    {"prompt": "a cat", "clip_skip": 0},
    {"prompt": LONG, "negative_prompt": LONG[30:]},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_stable_diffusion(sd: Any, request_: dict[str, Any]) -> None:
    mine = ours(sd, "sd1", **request_)
    prompt, negative = sd.encode_prompt(
        device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **request_
    )
    same(mine.hidden, prompt)
    same(mine.negative_hidden, negative)
    assert mine.pooled is None and mine.negative_pooled is None


XL_REQUESTS = [
    *REQUESTS,
    {"prompt": "a cat", "prompt_2": "a painting"},
    {"prompt": "a cat", "prompt_2": ""},
    {"prompt": "a cat", "negative_prompt": "blurry", "negative_prompt_2": "low quality"},
    {"prompt": ["a", "b"], "prompt_2": ["c", "d"], "negative_prompt": ["", "e"], "negative_prompt_2": ["f", "g"]},
]


@pytest.mark.parametrize("zeros", [True, False])
@pytest.mark.parametrize("request_", XL_REQUESTS, ids=str)
def test_sdxl(sdxl: Any, request_: dict[str, Any], zeros: bool) -> None:
    sdxl.register_to_config(force_zeros_for_empty_prompt=zeros)
    mine = ours(sdxl, "sdxl", **request_)
    prompt, negative, pooled, negative_pooled = sdxl.encode_prompt(device="cpu", **request_)
    same(mine.hidden, prompt)
    same(mine.pooled, pooled)
    same(mine.negative_hidden, negative)
    same(mine.negative_pooled, negative_pooled)
    if zeros and "negative_prompt" not in request_:
        assert mine.negative_hidden is not None and not mine.negative_hidden.any()


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_refiner(refiner: Any, request_: dict[str, Any]) -> None:
    mine = ours(refiner, "sdxl-refiner", **request_)
    prompt, negative, pooled, negative_pooled = refiner.encode_prompt(device="cpu", **request_)
    same(mine.hidden, prompt)
    same(mine.pooled, pooled)
    same(mine.negative_hidden, negative)
    same(mine.negative_pooled, negative_pooled)


def test_no_guidance(sdxl: Any) -> None:
    mine = ours(sdxl, "sdxl", guidance=False, prompt="a cat")
    assert mine.negative_hidden is None and mine.negative_pooled is None and mine.warnings == ()
    warned = ours(sdxl, "sdxl", guidance=False, prompt="a cat", negative_prompt="blurry")
    assert warned.negative_hidden is None
    assert "negative_prompt has no effect without guidance" in warned.warnings[0]


def test_truncation_says_what_was_cut(sdxl: Any) -> None:
    mine = ours(sdxl, "sdxl", prompt="word " * 40 + LONG + " the last words")
    assert len(mine.warnings) == 1, "once for both encoders"
    assert "the last words" in mine.warnings[0] and "chunk" in mine.warnings[0]
    assert ours(sdxl, "sdxl", prompt="a cat").warnings == ()


def test_exactly_75_tokens_fit(sd: Any) -> None:
    assert ours(sd, "sd1", prompt="! " * 75).warnings == ()
    assert "too long by 1 tokens" in ours(sd, "sd1", prompt="! " * 76).warnings[0]


def test_chunks(sdxl: Any) -> None:
    """A long prompt is its parts of 75 tokens side by side; the shorter side is filled up with the empty prompt."""
    parts = ["! " * 75, "? " * 75, "cat"]
    mine = ours(sdxl, "sdxl", prompt="".join(parts), negative_prompt="blurry", long_prompt="chunk")
    assert mine.hidden.shape[1] == 3 * 77 and mine.negative_hidden is not None
    each = [ours(sdxl, "sdxl", prompt=part).hidden for part in parts]
    np.testing.assert_allclose(mine.hidden, np.concatenate(each, axis=1), atol=1e-5)
    empty = ours(sdxl, "sdxl", prompt="").hidden
    blurry = ours(sdxl, "sdxl", prompt="blurry").hidden
    np.testing.assert_allclose(mine.negative_hidden, np.concatenate([blurry, empty, empty], axis=1), atol=1e-5)
    first = ours(sdxl, "sdxl", prompt=parts[0]).pooled
    assert mine.pooled is not None and first is not None
    np.testing.assert_allclose(mine.pooled, first, atol=1e-5)
    assert mine.warnings == ()


def test_second_prompt_longer(sdxl: Any) -> None:
    mine = ours(sdxl, "sdxl", prompt="a cat", prompt_2="! " * 100, long_prompt="chunk")
    assert mine.hidden.shape == (1, 154, 24 + 32)
    np.testing.assert_allclose(mine.hidden[:, 77:, :24], ours(sdxl, "sdxl", prompt="").hidden[..., :24], atol=1e-5)


def test_batches_and_repeats() -> None:
    """Equal windows are encoded once; no call takes more than max_batch."""
    pipeline = sd_pipeline()
    [encoder] = text_encoders(pipeline, max_batch=2)
    request = PromptRequest(prompt=["a", "b", "a", "c", "d"], negative_prompt="a")
    mine = encode_prompts([encoder], request, family=FAMILIES["sd1"].text, guidance=True)
    assert encoder.run.windows == [2, 2]  # type: ignore[attr-defined]
    prompt, negative = pipeline.encode_prompt(["a", "b", "a", "c", "d"], "cpu", 1, True, ["a"] * 5)
    same(mine.hidden, prompt)
    same(mine.negative_hidden, negative)


def embeddings(tokens: int = 77, batch: int = 1, width: int = 56, pooled: int = 36) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "prompt_embeds": rng.standard_normal((batch, tokens, width)).astype(np.float16),
        "pooled_prompt_embeds": rng.standard_normal((batch, pooled)).astype(np.float32),
    }


def test_given_embeddings(sdxl: Any) -> None:
    sdxl.register_to_config(force_zeros_for_empty_prompt=False)
    given = embeddings(batch=2)
    mine = ours(sdxl, "sdxl", **given)
    np.testing.assert_array_equal(mine.hidden, given["prompt_embeds"].astype(np.float32))
    np.testing.assert_array_equal(mine.pooled, given["pooled_prompt_embeds"])
    empty = ours(sdxl, "sdxl", prompt="")
    assert mine.negative_hidden is not None and mine.negative_hidden.shape == (2, 77, 56)
    np.testing.assert_allclose(mine.negative_hidden[1:], empty.hidden, atol=1e-5)


def test_given_embeddings_and_long_negative(sdxl: Any) -> None:
    mine = ours(sdxl, "sdxl", **embeddings(), negative_prompt="! " * 100, long_prompt="chunk", clip_skip=1)
    assert mine.hidden.shape == (1, 154, 56)
    padding = ours(sdxl, "sdxl", prompt="", clip_skip=1).hidden
    np.testing.assert_allclose(mine.hidden[:, 77:], padding, atol=1e-5)
    assert mine.warnings == ("clip_skip has no effect on prompt_embeds",)


def test_given_embeddings_of_two_windows(sdxl: Any) -> None:
    sdxl.register_to_config(force_zeros_for_empty_prompt=False)
    empty = ours(sdxl, "sdxl", **embeddings(154)).negative_hidden
    assert empty is not None and empty.shape == (1, 154, 56)
    sdxl.register_to_config(force_zeros_for_empty_prompt=True)
    zeros = ours(sdxl, "sdxl", **embeddings(100))  # any length where nothing has to match it
    assert zeros.negative_hidden is not None and zeros.negative_hidden.shape == (1, 100, 56)


def test_zeros_ignore_negative_prompt_2(sdxl: Any) -> None:
    sdxl.register_to_config(force_zeros_for_empty_prompt=True)
    mine = ours(sdxl, "sdxl", prompt="a cat", negative_prompt_2="blurry")
    assert mine.negative_hidden is not None and not mine.negative_hidden.any()
    assert "negative_prompt_2 has no effect" in mine.warnings[0]


def test_without_text_encoders() -> None:
    """A bundle may have none, if all embeddings are given."""
    given = embeddings()
    request = PromptRequest(**given, **{f"negative_{k}": v for k, v in given.items()})
    mine = encode_prompts([], request, family=FAMILIES["sdxl"].text, guidance=True)
    np.testing.assert_array_equal(mine.negative_pooled, given["pooled_prompt_embeds"])
    with pytest.raises(UsageError, match="there is no text encoder"):
        encode_prompts([], PromptRequest(prompt="a"), family=FAMILIES["sdxl"].text, guidance=True)


GOOD = embeddings()


@pytest.mark.parametrize(
    ("family", "request_", "message"),
    [
        ("sdxl", {}, "there is no prompt"),
        ("sdxl", {"prompt": "a", **GOOD}, "prompt and prompt_embeds were both given"),
        ("sdxl", {"prompt_2": "a", **GOOD}, "prompt_2 and prompt_embeds were both given"),
        ("sdxl", {"prompt": "a", "pooled_prompt_embeds": GOOD["pooled_prompt_embeds"]}, "belong together"),
        ("sdxl", {"prompt_embeds": GOOD["prompt_embeds"]}, "also needs pooled_prompt_embeds"),
        ("sdxl", embeddings(width=57), "prompt_embeds has a width of 57; this checkpoint's embeddings have 56"),
        ("sdxl", embeddings(pooled=37), "pooled_prompt_embeds has a width of 37; .* 36"),
        ("sdxl", {**GOOD, "prompt_embeds": GOOD["prompt_embeds"][0]}, r"3 axes, \[prompts, tokens, width\]"),
        ("sdxl", {**embeddings(batch=2), "pooled_prompt_embeds": GOOD["pooled_prompt_embeds"]}, "1 rows for 2 prompts"),
        ("sdxl", {**embeddings(80), "negative_prompt": "a"}, "80 tokens, no multiple of 77"),
        ("sdxl", {**GOOD, **{f"negative_{k}": v for k, v in embeddings(154).items()}}, "make them equal"),
        ("sdxl", {"prompt": ["a", "b"], "negative_prompt": ["a"]}, "1 entries for 2 prompts"),
        ("sdxl", {"prompt": ["a"], "prompt_2": ["a", "b"]}, "2 entries for 1 prompts"),
        ("sdxl", {"prompt": []}, "empty list"),
        ("sdxl", {"prompt": 3}, "a text or a list of texts, not int"),
        ("sdxl", {"prompt": ["a", None]}, "a text or a list of texts"),
        ("sdxl", {"prompt": "a", "clip_skip": 3}, "clip_skip=3 is out of range: text_encoder has layers for 0 to 2"),
        ("sdxl", {"prompt": "a", "clip_skip": -2}, "out of range"),
        ("sdxl", {"prompt": "a", "long_prompt": "chunks"}, "did you mean 'chunk'"),
        ("sdxl", {"prompt": "a \ud800"}, "not valid Unicode"),
        ("sd1", {"prompt": "a", "prompt_2": "b"}, "prompt_2 needs a second text encoder"),
        ("sd1", {"prompt": "a", "clip_skip": -1}, "out of range"),
        ("sd1", embeddings(width=24), "takes no pooled_prompt_embeds"),
    ],
)
def test_bad_requests(sd: Any, sdxl: Any, family: str, request_: dict[str, Any], message: str) -> None:
    sdxl.register_to_config(force_zeros_for_empty_prompt=True)
    with pytest.raises(UsageError, match=message):
        ours(sd if family == "sd1" else sdxl, family, **request_)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_break_starts_a_new_window(sd: Any, sdxl: Any, family: str) -> None:
    pipeline = sd if family == "sd" else sdxl
    name = "sd1" if family == "sd" else "sdxl"
    parts = ["a cat on the table", "a small red house", LONG[:250]]
    found = ours(pipeline, name, prompt=" BREAK ".join(parts), long_prompt="chunk", guidance=False)
    alone = [ours(pipeline, name, prompt=part, guidance=False) for part in parts]
    np.testing.assert_allclose(found.hidden, np.concatenate([part.hidden for part in alone], axis=1), atol=1e-6)
    if found.pooled is not None:
        assert alone[0].pooled is not None
        np.testing.assert_allclose(found.pooled, alone[0].pooled, atol=1e-6)
    assert not found.warnings
    literal = ours(pipeline, name, prompt="a cat BREAK a house", guidance=False)
    theirs = ours(pipeline, name, prompt="a cat BREAK a house", guidance=False, weighting=False)
    np.testing.assert_array_equal(literal.hidden, theirs.hidden)
    assert ["BREAK" in warning for warning in literal.warnings] == [True]


def test_a_weight_in_a_window_of_its_own(sdxl: Any) -> None:
    found = ours(sdxl, "sdxl", prompt="a cat BREAK a (red:0.6) house", long_prompt="chunk", guidance=False)
    assert found.hidden.shape[1] == 2 * 77
    alone = ours(sdxl, "sdxl", prompt="a (red:1.4) house", long_prompt="chunk", guidance=False)
    stronger = ours(sdxl, "sdxl", prompt="a cat BREAK a (red:1.4) house", long_prompt="chunk", guidance=False)
    np.testing.assert_allclose(stronger.hidden[:, 77:], alone.hidden, atol=1e-6)
