"""Tokenizer folders in all the layouts that checkpoints come with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.clip_tokenizer import BOS, EOS, merges, save_tokenizer, vocabulary

__all__ = ["LAYOUTS"]


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _token(content: str, **changes: Any) -> dict[str, Any]:
    fields = {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    return {**fields, **changes}


def _bare_pair(folder: Path) -> None:
    """Nothing but vocab.json and merges.txt."""
    _write(folder / "vocab.json", vocabulary())
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges()), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")


def _sd1(folder: Path) -> None:
    """As Stable Diffusion 1's: typed tokens in the configuration, a special tokens map."""
    _bare_pair(folder)
    settings = {key: {"__type": "AddedToken", **_token(value)} for key, value in _NAMED.items()}
    _write(folder / "tokenizer_config.json", {**settings, **_COMMON, "pad_token": EOS})
    _write(folder / "special_tokens_map.json", {**{k: _token(v) for k, v in _NAMED.items()}, "pad_token": EOS})


def _sdxl_2(folder: Path) -> None:
    """As the second tokenizer of early SDXL uploads: padding that only the special tokens map knows."""
    _bare_pair(folder)
    settings = {key: {"__type": "AddedToken", **_token(value)} for key, value in _NAMED.items()}
    _write(folder / "tokenizer_config.json", {**settings, **_COMMON, "pad_token": EOS})
    _write(folder / "special_tokens_map.json", {**{k: _token(v) for k, v in _NAMED.items()}, "pad_token": "!"})


def _listed(folder: Path) -> None:
    """As later uploads: all tokens listed by id in the configuration."""
    _bare_pair(folder)
    listed = {
        "0": _token("!", normalized=False, special=True),
        str(vocabulary()[BOS]): _token(BOS, special=True),
        str(vocabulary()[EOS]): _token(EOS, special=True),
    }
    extra = {"added_tokens_decoder": listed, "additional_special_tokens": [EOS]}
    _write(folder / "tokenizer_config.json", {**_NAMED, **_COMMON, "pad_token": "!", **extra})
    _write(folder / "special_tokens_map.json", {**_NAMED, "pad_token": "!"})


def _added(folder: Path) -> None:
    """With words added by a fine-tune, listed in added_tokens.json."""
    _sd1(folder)
    _write(folder / "added_tokens.json", {"<Sks>": len(vocabulary()), "zz top": len(vocabulary()) + 1})


def _stripping(folder: Path) -> None:
    """Markers that swallow the blanks beside them, or stand alone only."""
    _bare_pair(folder)
    end = {"content": EOS, "lstrip": True}
    named = {"bos_token": _token(BOS, rstrip=True), "eos_token": end, "unk_token": end}
    extra = [{"__type": "AddedToken", **_token("cat", single_word=True, special=True)}]
    _write(folder / "special_tokens_map.json", {**named, "pad_token": "!"})
    _write(folder / "tokenizer_config.json", {"model_max_length": 10**30, "additional_special_tokens": extra})


def _mixed(folder: Path) -> None:
    """The end marker named three times, once as a bare string, which transformers takes to match its own case only."""
    _bare_pair(folder)
    named = {"bos_token": _token(BOS), "eos_token": _token(EOS), "unk_token": EOS, "pad_token": _token(EOS)}
    _write(folder / "special_tokens_map.json", named)


def _json(folder: Path) -> None:
    """tokenizer.json, as transformers 5 writes it."""
    save_tokenizer(folder)


def _json_padded(folder: Path) -> None:
    save_tokenizer(folder, pad_token="!")


def _json_old(folder: Path) -> None:
    """tokenizer.json as older releases wrote it: merges as strings, padding and truncation switched on."""
    save_tokenizer(folder, pad_token="!")
    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    whole["model"]["merges"] = [" ".join(pair) for pair in whole["model"]["merges"]]
    whole["truncation"] = {"direction": "Right", "max_length": 77, "strategy": "LongestFirst", "stride": 0}
    _write(folder / "tokenizer.json", whole)


def _both(folder: Path) -> None:
    """tokenizer.json and the older pair, which disagree: the former counts."""
    save_tokenizer(folder)
    _write(folder / "vocab.json", {token: i for i, token in enumerate(reversed(vocabulary()))})
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


def _legacy(folder: Path) -> None:
    save_tokenizer(folder, pad_token="!", legacy=True)


_NAMED = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS}
_COMMON = {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "model_max_length": 77}

LAYOUTS: dict[str, Callable[[Path], None]] = {
    name.__name__.strip("_"): name
    for name in (
        _bare_pair,
        _sd1,
        _sdxl_2,
        _listed,
        _added,
        _stripping,
        _mixed,
        _json,
        _json_padded,
        _json_old,
        _both,
        _legacy,
    )
}
