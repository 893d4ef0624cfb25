"""Weighted embeddings against Compel's, where the two syntaxes mean the same."""

from typing import Any

import numpy as np
import pytest
from compel import Compel, ReturnedEmbeddingsType, SplitLongTextMode
from sdengine.engines.families import FAMILIES, TextReading
from sdengine.runtime.prompt import EncodedPrompts, PromptRequest, encode_prompts

from .networks import sd_pipeline, sdxl_pipeline, text_encoders

SD_TYPE = ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED
XL_TYPE = ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
BRUTAL = SplitLongTextMode.BRUTAL

# ours, Compel's
PROMPTS = [
    ("a red cat on a table", "a red cat on a table"),
    ("a (red cat:1.3) on a table", "a (red cat)1.3 on a table"),
    ("a (red cat:0.5) on a table", "a (red cat)0.5 on a table"),
    ("a (red cat:1.7) on a (wooden table:0.3), (blurry:0.9)", "a (red cat)1.7 on a (wooden table)0.3, (blurry)0.9"),
    ("((red)) cat", "red++ cat"),
    ("(red cat) on ((a table))", "(red cat)+ on (a table)++"),
    ("red (cat:0.9) (dog:0.81)", "red cat- dog--"),
    ("(a (small:1.5) house:0.5) by the sea", "(a (small)1.5 house)0.5 by the sea"),
    ("(a (small:0.5) house:1.5) by the sea", "(a (small)0.5 house)1.5 by the sea"),
    ("a cat (with a hat:0)", "a cat (with a hat)0.0"),
    ("(everything:0.6)", "(everything)0.6"),
    ("(everything:1.6)", "(everything)1.6"),
    ("an un(believ:1.2)able cat", "an un (believ)1.2 able cat"),
    ("(the same:0.5) cat and (the same:0.7) cat", "(the same)0.5 cat and (the same)0.7 cat"),
    (r"a cat \(red\), (dog:1.2)", r"a cat \(red\), (dog)1.2"),
]
FILL = "the street in the rain at night and blue mountains under the stars "
LONG_PROMPTS = [
    (FILL * 7 + "(a red cat:1.4) " + FILL, FILL * 7 + "(a red cat)1.4 " + FILL),
    (FILL * 2 + f"({FILL * 6}:0.6)", FILL * 2 + f"({FILL * 6})0.6"),  # runs over the end of a window
    (f"({FILL * 8}:0.6)", f"({FILL * 8})0.6"),
    (FILL * 9 + "(a red cat:0.4)", FILL * 9 + "(a red cat)0.4"),  # lies beyond the first window altogether
]


@pytest.fixture(scope="module")
def sd() -> Any:
    return sd_pipeline()


@pytest.fixture(scope="module")
def sdxl() -> Any:
    return sdxl_pipeline()


def ours(pipeline: Any, family: TextReading, prompt: str, **request: Any) -> EncodedPrompts:
    return encode_prompts(
        text_encoders(pipeline), PromptRequest(prompt=prompt, **request), family=family, guidance=False
    )


def compel(tokenizer: Any, text_encoder: Any, kind: ReturnedEmbeddingsType, *, truncate: bool) -> Compel:
    return Compel(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        truncate_long_prompts=truncate,
        returned_embeddings_type=kind,
        split_long_text_mode=BRUTAL,
    )


@pytest.mark.parametrize(("prompt", "theirs"), PROMPTS + LONG_PROMPTS, ids=lambda text: text[-40:])
@pytest.mark.parametrize("truncate", [True, False])
def test_stable_diffusion(sd: Any, prompt: str, theirs: str, truncate: bool) -> None:
    mine = ours(sd, FAMILIES["sd1"].text, prompt, long_prompt="truncate" if truncate else "chunk")
    expected = compel(sd.tokenizer, sd.text_encoder, SD_TYPE, truncate=truncate)(theirs).numpy()
    assert len(mine.hidden[0]) == 77 or (not truncate and (prompt, theirs) in LONG_PROMPTS)
    np.testing.assert_allclose(mine.hidden, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("prompt", "theirs"), PROMPTS + LONG_PROMPTS, ids=lambda text: text[-40:])
def test_sdxl(sdxl: Any, prompt: str, theirs: str) -> None:
    mine = ours(sdxl, FAMILIES["sdxl"].text, prompt, long_prompt="chunk")
    first = compel(sdxl.tokenizer, sdxl.text_encoder, XL_TYPE, truncate=False)(theirs).numpy()
    second = compel(sdxl.tokenizer_2, sdxl.text_encoder_2, XL_TYPE, truncate=False)(theirs).numpy()
    np.testing.assert_allclose(mine.hidden, np.concatenate([first, second], axis=-1), rtol=1e-4, atol=1e-4)


def test_weights_matter(sd: Any) -> None:
    """Without this, a weighting that does nothing would pass where Compel's did nothing."""
    family = FAMILIES["sd1"].text
    plain = ours(sd, family, "a red cat").hidden
    for prompt in ("a (red:1.3) cat", "a (red:0.7) cat", "a [red] cat", "a (red) cat"):
        assert np.abs(ours(sd, family, prompt).hidden - plain).max() > 0.05
    np.testing.assert_array_equal(ours(sd, family, "a (red:1) cat").hidden, plain)


def test_pooled_is_unweighted(sdxl: Any) -> None:
    family = FAMILIES["sdxl"].text
    plain, more, less = (
        ours(sdxl, family, prompt).pooled
        for prompt in ("a red cat on a table", "a (red cat:1.3) on a table", "a (red cat:0.3) on a table")
    )
    assert plain is not None and more is not None and less is not None
    np.testing.assert_allclose(more, plain, atol=1e-5)
    np.testing.assert_allclose(less, plain, atol=1e-5)


def test_weighting_off(sd: Any) -> None:
    """Brackets are then characters, as they are to diffusers."""
    mine = ours(sd, FAMILIES["sd1"].text, "a (red:1.3) [cat", weighting=False)
    theirs = sd.encode_prompt("a (red:1.3) [cat", "cpu", 1, False)[0]
    np.testing.assert_allclose(mine.hidden, theirs.detach().numpy(), atol=1e-5)
    assert mine.warnings == ()


def test_unbalanced_is_encoded_literally(sd: Any) -> None:
    mine = ours(sd, FAMILIES["sd1"].text, "a (red cat")
    theirs = sd.encode_prompt("a (red cat", "cpu", 1, False)[0]
    np.testing.assert_allclose(mine.hidden, theirs.detach().numpy(), atol=1e-5)
    assert "unbalanced" in mine.warnings[0]
