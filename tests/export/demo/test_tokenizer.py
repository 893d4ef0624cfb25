import random
from pathlib import Path

import pytest
from sdengine.export.demo.training.captions import all_scenes, caption
from sdengine.export.demo.training.train_tokenizer import BOS, EOS, learn_merges, vocabulary_of, write_tokenizer

Merges = list[tuple[str, str]]


@pytest.fixture(scope="module")
def merges() -> Merges:
    return learn_merges()


def test_merges_are_the_same_every_time(merges: Merges) -> None:
    assert merges == learn_merges()


def test_the_vocabulary_is_in_clips_order(merges: Merges) -> None:
    vocabulary = vocabulary_of(merges)
    tokens = list(vocabulary)
    assert list(vocabulary.values()) == list(range(512 + len(merges) + 2))
    assert (tokens[0], tokens[256], tokens[-2:]) == ("!", "!</w>", [BOS, EOS])
    assert len(set(tokens[:256])) == 256


@pytest.mark.parametrize(("pad", "number"), [(EOS, 607), ("!", 0)])
def test_transformers_reads_it(tmp_path: Path, merges: Merges, pad: str, number: int) -> None:
    from transformers import CLIPTokenizer

    assert write_tokenizer(tmp_path, merges, pad=pad) == 608
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    for seed, scene in enumerate(all_scenes()[::40]):
        sentence = caption(scene, random.Random(seed))
        words = sentence.replace(",", " ,").split()
        assert tokenizer.tokenize(sentence) == [word + "</w>" for word in words]
    ids = tokenizer(["a red ring"], padding="max_length", truncation=True)["input_ids"][0]
    assert (ids[0], ids[4:6], len(ids)) == (606, [607, number], 77)


def test_a_word_never_seen_falls_apart_into_bytes(tmp_path: Path, merges: Merges) -> None:
    from transformers import CLIPTokenizer

    write_tokenizer(tmp_path, merges, pad=EOS)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    assert tokenizer.tokenize("Größe 3") != []
    assert 607 not in tokenizer("Größe 3 zebra")["input_ids"][:-1]
