"""Tokens against transformers' CLIPTokenizer, for every way a vocabulary is stored."""

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sdengine.engines.errors import BundleError, UsageError
from sdengine.runtime.prompt import Tokenizer
from transformers import CLIPTokenizer

from tests.clip_tokenizer import save_tokenizer

from .folders import LAYOUTS

CORPUS = [
    "",
    " ",
    "a photo of a cat",
    "A PHOTO  of\ta\nCAT\r\n ",
    "It's the cat's; they'll, we've, I'd, I'm, you're DON'T",
    "4k 8K 1234567 ١٢٣ ⅷ ½ ²",
    "😀 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 #️⃣",
    "e\u0301 é Å A\u030a \u1e9b\u0323 \ufb01 Ω ℌ",  # decomposed and composed; compatibility forms stay
    "Z̷̢̛a̵͔͠l̶̰͝g̸̼̈o̴͎͛",
    "שלום עולם مرحبا بالعالم \u202eabc\u202c \u200f",
    "漢字 かな カタカナ 한국어 各种各样的文字 𠮷",
    "हिन्दी ภาษาไทย Тест Ελληνικά ΣΊΣΥΦΟΣ",
    "İstanbul ıI ẞ ß ﬀ Ǆ ǅ ǆ",
    "\x00\x01\x07\x08\x0b\x0c\x1b\x1c\x7f\x80\x85\x9f",
    "zero\u200bwidth\u200c\u200d\ufeffbom\u00a0nbsp\u2003em\u3000ideographic\u2028line",
    "!!! ?!? ... --- ___ *** ~~~ \\ \\( \\) [[]] (()) {}<>|",
    "hello!world ! a!",
    "<|startoftext|> in the <|endoftext|> text<|endoftext|>more <|ENDOFTEXT|> <|endoftext |>",
    "<Sks> <sks> <SKS> zz top ZZ  Top cat concat",
    "http://example.com/a?b=c&d=e#f user@example.com C:\\path",
    "\U0010ffff \ufffd \ue000 \U000e0041 \u0378",
    "a" * 10_000,
    "word " * 2_000,
    "漢" * 10_000,
    "e\u0301" * 5_000,
    "!" * 10_000,
    " \t\n" * 3_400,
    "😀" * 2_500,
]


@pytest.fixture(scope="module", params=sorted(LAYOUTS))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, CLIPTokenizer]:
    folder = tmp_path_factory.mktemp(request.param)
    LAYOUTS[request.param](folder)
    return Tokenizer.from_folder(folder), CLIPTokenizer.from_pretrained(folder)


def theirs(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    return ids[1:-1]


def test_markers(pair: tuple[Tokenizer, CLIPTokenizer]) -> None:
    ours, clip = pair
    assert (ours.bos, ours.eos, ours.pad) == (clip.bos_token_id, clip.eos_token_id, clip.pad_token_id)
    assert ours.vocab_size == len(clip)
    assert ours.max_length == 77


@pytest.mark.parametrize("text", CORPUS, ids=lambda text: repr(text[:20]))
def test_corpus(pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    ours, clip = pair
    assert ours.encode(text) == theirs(clip, text)


_PIECES = ["the ", "cat", "a photograph", "!", "'s", "'LL", " ", "\n", "<|endoftext|>", "<|", "|>", "\u0301", "\u00a0"]
_TEXT = st.lists(st.text(max_size=6) | st.sampled_from(_PIECES), max_size=12).map("".join)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=_TEXT)
def test_generated(pair: tuple[Tokenizer, CLIPTokenizer], text: str) -> None:
    ours, clip = pair
    assert ours.encode(text) == theirs(clip, text)


def test_lone_surrogate(pair: tuple[Tokenizer, CLIPTokenizer]) -> None:
    with pytest.raises(UsageError, match=r"character 4 .* U\+D83D"):
        pair[0].encode("cat \ud83d dog")


def test_threads_share_a_tokenizer(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    shared = Tokenizer.from_folder(tmp_path)
    texts = [text for text in CORPUS if len(text) < 100]
    expected = [shared.encode(text) for text in texts]
    wrong: list[str] = []

    def work(offset: int) -> None:
        for i in range(400):
            k = (i * 7 + offset) % len(texts)
            if shared.encode(texts[k]) != expected[k]:
                wrong.append(texts[k])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_decode(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.decode(tokenizer.encode("The astronaut's red house")) == "the astronaut 's red house"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no tokenizer"),
        ({"vocab.json": "{}"}, "holds no tokenizer"),
        ({"tokenizer.json": "{"}, "cannot be read as JSON"),
        ({"tokenizer.json": "[]"}, "a JSON object is needed"),
        ({"tokenizer.json": '{"model": {"type": "Unigram", "vocab": []}}'}, "no byte-pair encoding"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "a b c\n"}, "a merge is two words"),
        ({"vocab.json": '{"a": 0}', "merges.txt": "a b\n"}, "damaged tokenizer"),
    ],
)
def test_damaged_folder(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BundleError, match=message):
        Tokenizer.from_folder(tmp_path)


def test_placeholders_leave_the_original_alone(tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    plain = Tokenizer.from_folder(tmp_path)
    before = plain.encode("a <toy> cat")
    extended = plain.with_placeholders(["<toy>", "<toy>_1"], 5000)
    assert extended.encode("a <toy> cat") == [*plain.encode("a"), 5000, 5001, *plain.encode("cat")]
    assert plain.encode("a <toy> cat") == before
    assert extended.decode(extended.encode("a <toy>")) == "a <toy><toy>_1"
