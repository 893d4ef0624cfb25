"""Reading the files of a CLIP tokenizer.

Which of the files decides is transformers' rule (``PreTrainedTokenizerBase.from_pretrained``, release 5):
``tokenizer.json`` before ``vocab.json`` and ``merges.txt``; markers from ``tokenizer_config.json`` if that lists
``added_tokens_decoder``, otherwise from ``special_tokens_map.json``, ``added_tokens.json`` and ``tokenizer.json``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from ...engines.errors import BundleError
from ...engines.files.json_data import json_data

__all__ = ["Vocabulary", "read_vocabulary"]

# CLIP's markers where the files name no others, in the order in which transformers adds them.
_MARKERS: dict[str, str | None] = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "sep_token": None,
    "pad_token": "<|endoftext|>",
    "cls_token": None,
    "mask_token": None,
}
_CLIP_LENGTH = 77  # positions of every CLIP text encoder in use with Stable Diffusion


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The contents of a tokenizer folder."""

    ids: dict[str, int]
    merges: list[tuple[str, str]]
    markers: tuple[AddedToken, ...]
    bos: str
    eos: str
    pad: str
    unk: str
    max_length: int


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read a tokenizer folder.

    Raises:
        BundleError: there is no tokenizer in it, or it is damaged or not CLIP's kind.

    """
    whole = _read(folder / "tokenizer.json")
    ids, merges = _from_tokenizer_json(folder, whole) if whole is not None else _from_pair(folder)
    settings = dict(_read(folder / "tokenizer_config.json") or {})
    listed = _listed_markers(folder, settings, whole)
    named = {key: _named_marker(settings.get(key, default), listed) for key, default in _MARKERS.items()}
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    others = [token if isinstance(token, str) else _marker(token) for token in extra]
    markers = _in_order(listed, named, others)
    length = settings.get("model_max_length", settings.get("max_len"))
    return Vocabulary(
        ids=ids,
        merges=merges,
        markers=markers,
        bos=_content(named["bos_token"], "bos_token", folder),
        eos=_content(named["eos_token"], "eos_token", folder),
        pad=_content(named["pad_token"], "pad_token", folder),
        unk=_content(named["unk_token"], "unk_token", folder),
        # transformers writes 1e30 where the length was never set
        max_length=int(length) if length is not None and length < 2**31 else _CLIP_LENGTH,
    )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        value = json_data(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{path} holds a {type(value).__name__} where a JSON object is needed")
    return value


def _from_tokenizer_json(folder: Path, whole: Mapping[str, Any]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = whole.get("model") or {}
    ids, merges = model.get("vocab"), model.get("merges")
    if model.get("type", "BPE") != "BPE" or not isinstance(ids, dict) or not isinstance(merges, list):
        raise BundleError(f"{folder / 'tokenizer.json'} holds no byte-pair encoding, which is what CLIP's tokenizer is")
    return ids, [_merge(folder / "tokenizer.json", line) for line in merges]


def _from_pair(folder: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    ids, path = _read(folder / "vocab.json"), folder / "merges.txt"
    if ids is None or not path.is_file():
        raise BundleError(f"{folder} holds no tokenizer: neither tokenizer.json nor vocab.json with merges.txt")
    lines = path.read_text(encoding="utf-8").split("\n")
    lines = [line.rstrip("\r") for line in lines if not line.startswith("#version")]
    return ids, [_merge(path, line) for line in lines if line]


def _merge(path: Path, line: str | list[str]) -> tuple[str, str]:
    parts = line.split(" ") if isinstance(line, str) else line
    if len(parts) != 2:
        raise BundleError(f"{path}: a merge is two words, not {line!r}")
    return parts[0], parts[1]


def _listed_markers(folder: Path, settings: dict[str, Any], whole: Mapping[str, Any] | None) -> dict[int, AddedToken]:
    """Markers that a file lists by id; the older files are merged into ``settings``."""
    if "added_tokens_decoder" in settings:
        return {int(i): _marker(token) for i, token in settings["added_tokens_decoder"].items()}
    for key, value in (_read(folder / "special_tokens_map.json") or {}).items():
        settings[key] = {**value, "special": True} if isinstance(value, dict) else value
    special = {str(_marker(settings[key])) for key in _MARKERS if settings.get(key)}
    listed = {}
    for token, i in (_read(folder / "added_tokens.json") or {}).items():
        listed[int(i)] = AddedToken(token, normalized=token not in special, special=token in special)
    for entry in (whole or {}).get("added_tokens", []):
        listed[int(entry["id"])] = _marker({key: value for key, value in entry.items() if key != "id"})
    return listed


def _marker(token: Any) -> AddedToken:
    """Read a token as the files write it: a string, or its fields."""
    if isinstance(token, str):
        return AddedToken(token, special=True)
    return AddedToken(**{key: value for key, value in token.items() if key != "__type"})


def _named_marker(token: Any, listed: Mapping[int, AddedToken]) -> AddedToken | str | None:
    """The marker as it is listed, or else as it is named."""
    if token is None or isinstance(token, AddedToken):
        return token
    content = token if isinstance(token, str) else token["content"]
    entry = next((entry for entry in listed.values() if entry.content == content), None)
    return entry or (token if isinstance(token, str) else _marker(token))


def _in_order(
    listed: Mapping[int, AddedToken], named: Mapping[str, AddedToken | str | None], extra: list[AddedToken | str]
) -> tuple[AddedToken, ...]:
    """Markers as they are added: the listed ones by id, then the named ones, then the rest.

    A word may come twice, named as a string and with its fields; then the last one counts.
    """
    known = {entry.content for entry in listed.values()}
    markers: list[AddedToken | str] = [listed[i] for i in sorted(listed)]
    for marker in [*named.values(), *extra]:
        if marker is not None and str(marker) not in known and marker not in markers:
            markers.append(marker)
    return tuple(_marker(marker) if isinstance(marker, str) else marker for marker in markers)


def _content(marker: AddedToken | str | None, key: str, folder: Path) -> str:
    if marker is None:
        raise BundleError(f"{folder / 'tokenizer_config.json'} sets no {key}, which CLIP's tokenizer needs")
    return str(marker)
