"""Learns the demo checkpoint's two tokenizers: CLIP's byte-level BPE, with merges that suit the captions."""

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path

from .captions import all_scenes, caption
from .demo_networks import MAX_TOKENS

__all__ = ["BOS", "EOS", "learn_merges", "vocabulary_of", "write_tokenizer"]

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
_END_OF_WORD = "</w>"
_WORD = re.compile(r"[a-z]+|[0-9]|[^\sa-z0-9]+")  # CLIP's splitting, for captions in lower-case ASCII


def learn_merges() -> list[tuple[str, str]]:
    """Return the merges, most frequent first, until every word of the captions is one token."""
    words: Counter[str] = Counter()
    for number, scene in enumerate(all_scenes()):
        words.update(_WORD.findall(caption(scene, random.Random(f"tokenizer {number}"))))
    pieces = {word: [*word[:-1], word[-1] + _END_OF_WORD] for word in words}
    merges: list[tuple[str, str]] = []
    while pairs := _pairs(pieces, words):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = {word: _merged(symbols, best) for word, symbols in pieces.items()}
    return merges


def _pairs(pieces: dict[str, list[str]], words: Counter[str]) -> Counter[tuple[str, str]]:
    pairs: Counter[tuple[str, str]] = Counter()
    for word, symbols in pieces.items():
        for pair in itertools.pairwise(symbols):
            pairs[pair] += words[word]
    return pairs


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def _byte_symbols() -> list[str]:
    """Return GPT-2's printable stand-ins for the 256 bytes: printable Latin-1 as it is, the rest from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = len(set(range(256)) - set(printable))
    return [chr(code) for code in printable] + [chr(256 + n) for n in range(others)]


def vocabulary_of(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Return token -> id in CLIP's order: bytes, bytes that end a word, merges, and the two specials last."""
    symbols = _byte_symbols()
    tokens = [*symbols, *(symbol + _END_OF_WORD for symbol in symbols), *(a + b for a, b in merges), BOS, EOS]
    return {token: number for number, token in enumerate(tokens)}


def write_tokenizer(folder: Path, merges: list[tuple[str, str]], *, pad: str) -> int:
    """Write ``vocab.json``, ``merges.txt`` and their settings; return how many tokens there are.

    SDXL pads its first tokenizer with ``<|endoftext|>`` and its second with ``!``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = vocabulary_of(merges)
    _write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    specials = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad}
    _write_json(folder / "special_tokens_map.json", specials)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, "do_lower_case": True}
    _write_json(
        folder / "tokenizer_config.json", {**settings, "add_prefix_space": False, "errors": "replace", **specials}
    )
    return len(vocabulary)


def _write_json(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
