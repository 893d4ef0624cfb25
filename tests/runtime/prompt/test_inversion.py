"""Textual inversion against diffusers' load_textual_inversion, and the files it comes in."""

import copyreg
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sdengine.engines.errors import UsageError
from sdengine.engines.families import FAMILIES
from sdengine.runtime.prompt import (
    PromptRequest,
    TextualInversion,
    encode_prompts,
    inversion_notes,
    load_embeddings,
    load_inversions,
    with_inversions,
)

from .networks import refiner_pipeline, sd_pipeline, sdxl_pipeline, text_encoders


def vectors(count: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return (torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) * 0.5).to(dtype)


PROMPTS = [
    "a photo of <toy>",
    "<toy>",
    "<toy><toy> and <toy>!",
    "A <TOY> in upper case, which diffusers reads as the first vector only",
    "art<toy>istic",
    "a cat without it",
    "<toy>_1 alone",
    "the <single> one and <toy>, <Cased> <cased>",
]
FILES = {
    "<toy>": {"clip_l": vectors(3, 24, 1), "clip_g": vectors(3, 32, 2)},
    "<single>": {"clip_l": vectors(1, 24, 3), "clip_g": vectors(1, 32, 4)},
    "<Cased>": {"clip_l": vectors(2, 24, 5), "clip_g": vectors(2, 32, 6, torch.float16)},
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> list[TextualInversion]:
    folder = tmp_path_factory.mktemp("inversions")
    found = []
    for i, (token, tensors) in enumerate(FILES.items()):
        save_file(tensors, folder / f"{i}.safetensors")
        found += load_inversions((folder / f"{i}.safetensors", token))
    return found


@pytest.fixture(scope="module")
def sdxl() -> Any:
    """A pipeline into which diffusers has loaded the same files."""
    pipeline = sdxl_pipeline(force_zeros=False)
    for token, tensors in FILES.items():
        for name, tower in (("clip_l", ""), ("clip_g", "_2")):
            pipeline.load_textual_inversion(
                {name: tensors[name]},
                token=token,
                text_encoder=getattr(pipeline, f"text_encoder{tower}"),
                tokenizer=getattr(pipeline, f"tokenizer{tower}"),
            )
    return pipeline


@pytest.mark.parametrize("prompt", PROMPTS)
def test_sdxl(sdxl: Any, loaded: list[TextualInversion], prompt: str) -> None:
    encoders = with_inversions(text_encoders(sdxl_pipeline()), loaded)
    mine = encode_prompts(
        encoders,
        PromptRequest(prompt=prompt, negative_prompt="low <toy>"),
        family=FAMILIES["sdxl"].text,
        guidance=True,
    )
    theirs = sdxl.encode_prompt(prompt, device="cpu", negative_prompt="low <toy>")
    arrays = mine.hidden, mine.negative_hidden, mine.pooled, mine.negative_pooled
    for array, tensor in zip(arrays, theirs, strict=True):
        assert array is not None
        np.testing.assert_allclose(array, tensor.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_stable_diffusion(prompt: str, tmp_path: Path) -> None:
    """A file as diffusers writes it, the word in the name of its tensor."""
    save_file({"<toy>": vectors(2, 24)}, tmp_path / "learned_embeds.safetensors")
    pipeline = sd_pipeline()
    encoders = with_inversions(text_encoders(pipeline), load_inversions(tmp_path / "learned_embeds.safetensors"))
    mine = encode_prompts(encoders, PromptRequest(prompt=prompt), family=FAMILIES["sd1"].text, guidance=False)
    theirs = sd_pipeline()
    theirs.load_textual_inversion(tmp_path, weight_name="learned_embeds.safetensors")
    expected = theirs.encode_prompt(prompt, "cpu", 1, False)[0].detach().numpy()
    np.testing.assert_allclose(mine.hidden, expected, rtol=1e-5, atol=1e-5)


def test_weighted(loaded: list[TextualInversion]) -> None:
    """A word of several vectors inside brackets is weighted as a whole."""
    encoders = with_inversions(text_encoders(sdxl_pipeline()), loaded)

    def hidden(prompt: str) -> np.ndarray:
        request = PromptRequest(prompt=prompt)
        hidden = encode_prompts(encoders, request, family=FAMILIES["sdxl"].text, guidance=False).hidden
        return np.asarray(hidden[0])

    plain, weighted, empty = hidden("<toy> cat"), hidden("(<toy>:1.5) cat"), hidden("")
    np.testing.assert_allclose(weighted[1:4], empty[1:4] + 1.5 * (plain[1:4] - empty[1:4]), atol=1e-4)
    np.testing.assert_allclose(weighted[4:], plain[4:], atol=1e-5)


def test_refiner_takes_the_second_encoders_vectors(loaded: list[TextualInversion]) -> None:
    [encoder] = with_inversions(text_encoders(refiner_pipeline()), loaded)
    assert encoder.extra_embeddings is not None and encoder.extra_embeddings.shape == (3 + 1 + 2, 32)
    assert encoder.tokenizer.placeholders == ("<toy>", "<toy>_1", "<toy>_2", "<single>", "<Cased>", "<Cased>_1")


def test_a_word_that_one_encoder_does_not_know(tmp_path: Path, loaded: list[TextualInversion]) -> None:
    save_file({"<one>": vectors(1, 24)}, tmp_path / "one.safetensors")
    one = load_inversions(tmp_path / "one.safetensors")
    assert inversion_notes(text_encoders(sdxl_pipeline()), [*loaded, *one]) == [
        "textual inversion '<one>' has vectors for text_encoder only: text_encoder_2 reads it as text"
    ]
    assert inversion_notes(text_encoders(sd_pipeline()), one) == []


def test_added_one_after_another(loaded: list[TextualInversion]) -> None:
    base = text_encoders(sdxl_pipeline())
    together = with_inversions(base, loaded)
    in_turn = base
    for inversion in loaded:
        in_turn = with_inversions(in_turn, [inversion])
    for first, second in zip(together, in_turn, strict=True):
        assert first.tokenizer.encode(PROMPTS[-1]) == second.tokenizer.encode(PROMPTS[-1])
        np.testing.assert_array_equal(first.extra_embeddings, second.extra_embeddings)
    assert base[0].extra_embeddings is None and base[0].tokenizer.placeholders == ()


def test_names(tmp_path: Path) -> None:
    """The word is the tensor's name, or the file's where that says nothing, or what the caller says."""
    save_file({"emb_params": vectors(2, 24)}, tmp_path / "easynegative.safetensors")
    save_file({"<toy>": vectors(1, 24)[0]}, tmp_path / "other.safetensors")
    assert words(tmp_path / "easynegative.safetensors") == [["easynegative", "easynegative_1"]]
    assert words(tmp_path / "other.safetensors") == [["<toy>"]]
    assert words((tmp_path / "other.safetensors", "<mine>")) == [["<mine>"]]


def test_bfloat16(tmp_path: Path) -> None:
    exact = torch.tensor([[1.0, -0.5, 3.0e38]])
    save_file({"x": exact.to(torch.bfloat16)}, tmp_path / "x.safetensors")
    values = load_inversions(tmp_path / "x.safetensors")[0].vectors[""]
    np.testing.assert_array_equal(values, exact.to(torch.bfloat16).float().numpy())


@pytest.mark.parametrize(
    ("tensors", "token", "message"),
    [
        ({"<x>": vectors(1, 25)}, None, r"width of 25; this checkpoint has text_encoder 24, text_encoder_2 32"),
        ({"clip_l": vectors(1, 32), "clip_g": vectors(1, 32)}, "<x>", "width of 32"),
        ({"a": vectors(1, 24), "b": vectors(1, 24)}, "<x>", r"holds 2 words \(a, b\), but 1 were named"),
        ({"clip_l": vectors(1, 24), "b": vectors(1, 24)}, None, "beside clip_l and clip_g there should be nothing"),
        ({"x": vectors(2, 24)}, ["<a>", "<b>", "<c>"], "holds 2 vectors, but 3 words were named"),
        ({"clip_l": vectors(2, 24), "clip_g": vectors(1, 32)}, ["<a>", "<b>"], "holds 1 vectors for text_encoder_2"),
        ({"x": vectors(2, 24)}, [], "should be texts"),
        ({"!": vectors(1, 24)}, None, "'!' is already in the vocabulary of text_encoder"),
        ({"<x>": vectors(1, 24)}, " ", "empty"),
        ({"<x>": torch.zeros(1, 2, 24)}, None, r"shape \[1, 2, 24\]"),
        ({"<x>": torch.zeros(0, 24)}, None, r"shape \[0, 24\]"),
        ({"<x>": torch.zeros(1, 24, dtype=torch.int64)}, None, "type I64"),
        ({"<x>": torch.full((1, 24), torch.nan)}, None, "NaN"),
    ],
)
def test_unsuitable(
    tmp_path: Path, tensors: dict[str, torch.Tensor], token: str | list[str] | None, message: str
) -> None:
    file = tmp_path / "x.safetensors"
    save_file(tensors, file)
    source = file if token is None else (file, token)
    with pytest.raises(UsageError, match=message):
        with_inversions(text_encoders(sdxl_pipeline()), load_inversions(source))


def test_same_word_twice(loaded: list[TextualInversion]) -> None:
    encoders = text_encoders(sdxl_pipeline())
    with pytest.raises(UsageError, match="'<toy>' is already in the vocabulary"):
        with_inversions(encoders, [loaded[0], loaded[0]])
    with pytest.raises(UsageError, match="'<toy>' is already in the vocabulary"):
        with_inversions(with_inversions(encoders, loaded), [loaded[0]])


FORMATS: dict[str, tuple[Any, str | list[str] | None]] = {
    "diffusers": ({"<toy>": vectors(2, 24)}, None),
    "diffusers, one vector": ({"<toy>": vectors(1, 24)[0]}, None),
    "diffusers, another word": ({"<other>": torch.nn.Parameter(vectors(2, 24).T.contiguous().T)}, "<toy>"),
    "web UI": (
        {
            "string_to_token": {"*": torch.tensor(265)},
            "string_to_param": {"*": torch.nn.Parameter(vectors(3, 24))},
            "name": "<toy>",
            "step": 1000,
            "sd_checkpoint": "cafe",
            "sd_checkpoint_name": "some model",
        },
        None,
    ),
    "web UI in half precision": ({"string_to_param": {"*": vectors(2, 24).half()}, "name": "x", "step": None}, "<toy>"),
    "a bare tensor": (vectors(2, 24), "<toy>"),
    "a bare bfloat16 vector": (vectors(2, 24)[1].bfloat16(), "<toy>"),
    "a bare tensor of two words": (vectors(2, 24), ["<toy>", "<single>"]),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", FORMATS)
def test_files_of_torch(tmp_path: Path, name: str, zipped: bool) -> None:
    content, token = FORMATS[name]
    file = tmp_path / ("learned_embeds.bin" if "diffusers" in name else "x.pt")
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    mine = with_inversions(text_encoders(sd_pipeline()), load_inversions(file if token is None else (file, token)))
    theirs = sd_pipeline()
    # diffusers 0.42 opens files of torch with weights_only, which takes each of these.
    bare = isinstance(content, torch.Tensor)
    theirs.load_textual_inversion(content if bare else str(tmp_path), token=token, weight_name=file.name)
    for prompt in PROMPTS:
        request = PromptRequest(prompt=prompt)
        hidden = encode_prompts(mine, request, family=FAMILIES["sd1"].text, guidance=False).hidden
        expected = theirs.encode_prompt(prompt, "cpu", 1, False)[0].detach().numpy()
        np.testing.assert_allclose(hidden, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("names", "suffix", "named"),
    [
        (("text_encoders_0", "text_encoders_1"), ".pti", None),
        (("text_encoders_0", "text_encoders_1"), ".safetensors", ["<s0>", "<s1>"]),
        (("clip_l", "clip_g"), ".safetensors", ["<s0>", "<s1>"]),
        (("clip_l", "clip_g"), ".pt", ["<s0>", "<s1>"]),
    ],
)
def test_each_row_is_a_word_in_both_encoders(
    tmp_path: Path, names: tuple[str, str], suffix: str, named: list[str] | None
) -> None:
    """What pivotal tuning writes, and how diffusers' own example loads it."""
    tensors = dict(zip(names, (vectors(2, 24, 1), vectors(2, 32, 2)), strict=True))
    file = tmp_path / f"embeddings{suffix}"
    torch.save(tensors, file) if suffix == ".pt" else save_file(tensors, file)
    mine = with_inversions(text_encoders(sdxl_pipeline()), load_inversions(file if named is None else (file, named)))
    theirs = sdxl_pipeline()
    for i, name in enumerate(names):
        tower = "_2" if i else ""
        theirs.load_textual_inversion(
            tensors[name],
            token=["<s0>", "<s1>"],
            text_encoder=getattr(theirs, f"text_encoder{tower}"),
            tokenizer=getattr(theirs, f"tokenizer{tower}"),
        )
    for prompt in ("a photo of <s0><s1>", "<s1> alone, <s0>_1", "no word of it", "an <S0> in upper case"):
        request = PromptRequest(prompt=prompt)
        encoded = encode_prompts(mine, request, family=FAMILIES["sdxl"].text, guidance=False)
        hidden, _, pooled, _ = theirs.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
        np.testing.assert_allclose(encoded.hidden, hidden.detach().numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(encoded.pooled, pooled.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_several_words_in_one_file(tmp_path: Path) -> None:
    torch.save({"<a>": vectors(1, 24), "<b>": vectors(2, 24)}, tmp_path / "x.bin")
    assert words(tmp_path / "x.bin") == [["<a>"], ["<b>", "<b>_1"]]
    assert words((tmp_path / "x.bin", ["<c>", "<d>"])) == [["<c>"], ["<d>", "<d>_1"]]
    torch.save({"string_to_param": _OldParameterDict(vectors(1, 24)), "name": "old"}, tmp_path / "y.pt")
    assert words(tmp_path / "y.pt") == [["old"]]
    torch.save({"string_to_param": {"<a>": vectors(1, 24), "<b>": vectors(2, 24)}, "name": "both"}, tmp_path / "z.pt")
    assert words(tmp_path / "z.pt") == [["<a>"], ["<b>", "<b>_1"]]


class _OldParameterDict(torch.nn.Module):
    """How torch 1.11 pickled a ParameterDict."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = values

    def __reduce__(self) -> Any:
        kind = torch.nn.ParameterDict
        return copyreg._reconstructor, (kind, object, None), {"training": True, "_parameters": {"*": self.values}}  # type: ignore[attr-defined]


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds neither learned_embeds\.safetensors nor learned_embeds\.bin"):
        load_inversions(tmp_path)
    torch.save({"<toy>": vectors(1, 24)}, tmp_path / "learned_embeds.bin")
    assert words(tmp_path) == [["<toy>"]]


def words(source: Any) -> list[list[str]]:
    return [inversion.tokens for inversion in load_inversions(source)]


class _Bomb:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/sdengine-was-here",)


def test_unsafe_or_unreadable_files(tmp_path: Path) -> None:
    torch.save({"<x>": vectors(1, 24), "y": _Bomb()}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match="system, which could run code; nothing of it was run"):
        load_inversions(tmp_path / "x.pt")
    assert not Path("/tmp/sdengine-was-here").exists()
    with pytest.raises(UsageError, match="there is no file"):
        load_inversions(tmp_path / "y.safetensors")
    (tmp_path / "z.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(UsageError, match="it is of no known kind"):
        load_inversions(tmp_path / "z.safetensors")
    (tmp_path / "lfs.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UsageError, match="it is a Git LFS pointer"):
        load_inversions(tmp_path / "lfs.pt")
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(UsageError, match="holds no tensors"):
        load_inversions(tmp_path / "empty.safetensors")
    torch.save(vectors(1, 24), tmp_path / "bare.pt")
    with pytest.raises(
        UsageError, match=r"a tensor without a name; name its word \(--textual-inversion .*bare\.pt=WORD"
    ):
        load_inversions(tmp_path / "bare.pt")
    torch.save({"layer": {"a": vectors(1, 24)}, "step": 3}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match=r"holds layer, step; it should hold tensors by word"):
        load_inversions(tmp_path / "other.pt")
    for source in (5, ("a", "b", "c"), None):
        with pytest.raises(UsageError, match="is neither a file nor a pair of a file and its word"):
            load_inversions(source)  # type: ignore[arg-type]
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(UsageError, match="holds a list, not tensors"):
        load_inversions(tmp_path / "list.pt")


def test_the_reader_needs_no_torch(tmp_path: Path) -> None:
    torch.save({"<toy>": vectors(2, 24)}, tmp_path / "x.pt")
    code = (
        "import sys; from sdengine.runtime.prompt import load_inversions; "
        "print(load_inversions(sys.argv[1])[0].tokens, 'torch' in sys.modules, 'ml_dtypes' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.pt")], capture_output=True, text=True)
    assert done.stdout == "['<toy>', '<toy>_1'] False False\n", done.stderr


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_embeddings_file(tmp_path: Path, suffix: str) -> None:
    given = {
        "prompt_embeds": torch.randn(1, 77, 56).half(),
        "pooled_prompt_embeds": torch.randn(36),
        "negative_prompt_embeds": torch.randn(77, 56),
        "negative_pooled_prompt_embeds": torch.randn(1, 36),
    }
    file = tmp_path / f"x{suffix}"
    torch.save(given, file) if suffix == ".pt" else save_file(given, file)
    request = PromptRequest(**load_embeddings(file))  # type: ignore[arg-type]
    mine = encode_prompts(text_encoders(sdxl_pipeline()), request, family=FAMILIES["sdxl"].text, guidance=True)
    np.testing.assert_array_equal(mine.hidden, given["prompt_embeds"].float().numpy())
    np.testing.assert_array_equal(mine.pooled, given["pooled_prompt_embeds"].numpy()[None])
    np.testing.assert_array_equal(mine.negative_hidden, given["negative_prompt_embeds"].numpy()[None])


def test_embeddings_file_with_another_name(tmp_path: Path) -> None:
    save_file({"promt_embeds": torch.zeros(1, 77, 56)}, tmp_path / "x.safetensors")
    with pytest.raises(UsageError, match="did you mean 'prompt_embeds'"):
        load_embeddings(tmp_path / "x.safetensors")
