"""A CLIP tokenizer with a tiny vocabulary: the byte alphabet, its word-final twins and some learnt merges."""

import functools
import itertools
import json
from collections import Counter
from pathlib import Path

from transformers import CLIPTokenizer

__all__ = ["BOS", "EOS", "clip_tokenizer", "merges", "save_tokenizer", "vocabulary"]

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_CORPUS = """
a photograph of an astronaut riding a horse in the jungle, a painting of a small red house by the sea, the portrait
of an old man with a hat, a cat sitting on the table next to the window, blue and green mountains under the stars,
highly detailed digital art, a street in the rain at night, a bowl of fruit on a wooden table, low quality, blurry
"""


def _byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes, in CLIP's order: printable ones as themselves, ``!`` first."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]


@functools.cache
def merges(count: int = 120) -> tuple[tuple[str, str], ...]:
    """Learn ``count`` byte-pair merges from a few sentences, the most frequent pair first."""
    words = Counter("".join(c if c.isalpha() else " " for c in _CORPUS).split())
    pieces = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    learnt: list[tuple[str, str]] = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in pieces.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        learnt.append(best)
        pieces = {word: _merged(parts, best) for word, parts in pieces.items()}
    return tuple(learnt)


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


@functools.cache
def vocabulary() -> dict[str, int]:
    """Token to id, laid out as CLIP's: bytes, word-final bytes, merges, start, end (the highest id)."""
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), *("".join(pair) for pair in merges()), BOS, EOS]
    return {token: i for i, token in enumerate(dict.fromkeys(tokens))}


def clip_tokenizer(pad_token: str = EOS) -> CLIPTokenizer:
    """Return the tokenizer; SD 2 and SDXL's second one pad with ``!`` (id 0), the others with the end token."""
    return CLIPTokenizer(vocab=vocabulary(), merges=list(merges()), pad_token=pad_token, model_max_length=77)


def save_tokenizer(folder: Path, *, pad_token: str = EOS, legacy: bool = False) -> None:
    """Write the tokenizer: as ``tokenizer.json``, or (``legacy``) as ``vocab.json`` and ``merges.txt``."""
    clip_tokenizer(pad_token).save_pretrained(folder)
    if legacy:
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(vocabulary(), ensure_ascii=False), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges()), ""]
        (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
