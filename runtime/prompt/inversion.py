"""Textual inversion (Gal et al. 2022, arXiv:2208.01618): a learned vector, or several, behind a word of one's own.

What files hold, as ``.safetensors`` or as written by ``torch.save`` (read as data, nothing in them is run):

- one tensor named after the word, or several words (diffusers: ``learned_embeds``);
- ``string_to_param`` and ``name``, or ``emb_params`` (AUTOMATIC1111's web UI); of several words, each by its key;
- ``clip_l`` and ``clip_g`` for SDXL's two encoders: the rows of one word, or of as many words as are named;
- ``text_encoders_0`` and ``text_encoders_1`` (pivotal tuning's ``embeddings.pti``): row i is the word ``<s{i}>``;
- nothing but a tensor, whose word the caller names.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from ...engines.scalars import shortened
from .encoder import TextEncoder
from .tensors import read_content

__all__ = [
    "InversionSource",
    "TextualInversion",
    "inversion_notes",
    "inversions_in_lora",
    "load_inversions",
    "with_inversions",
]

InversionSource = str | Path | tuple[str | Path, str | Sequence[str]]
"""A file, or a file and its word or words."""

_F32 = NDArray[np.float32]
_ENCODERS = {
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
    "text_encoders_0": "text_encoder",
    "text_encoders_1": "text_encoder_2",
}
_ROW_IS_A_WORD = frozenset({"text_encoders_0", "text_encoders_1"})
_OF_OTHER_FAMILIES = frozenset({"t5xxl"})  # Stable Diffusion 3's third encoder
_NAMELESS = "emb_params"
_IN_FOLDERS = ("learned_embeds.safetensors", "learned_embeds.bin")  # as diffusers looks for them


@dataclass(frozen=True, kw_only=True)
class TextualInversion:
    """A word and the vectors it stands for.

    Attributes:
        token: the word as it is written in prompts; found anywhere in a text, in any case.
        vectors: f32 [n, D], by the component they are for; under "" if the width has to tell.

    """

    token: str
    vectors: dict[str, _F32]

    @property
    def tokens(self) -> list[str]:
        """The words for all n vectors; a prompt with the first is read as if it had them all."""
        longest = max(len(rows) for rows in self.vectors.values())
        return [self.token, *(f"{self.token}_{i}" for i in range(1, longest))]


def load_inversions(source: InversionSource) -> list[TextualInversion]:
    """Read a file of embeddings.

    Args:
        source: the file or the folder that holds ``learned_embeds.safetensors`` or ``.bin``; or a pair of it and the
            word to use, or of it and a list of words, one for each row. Without, the word is what the file says, or
            its name if it says nothing.

    Raises:
        UsageError: the file is not there, damaged or of another kind, or the words do not match its rows.

    """
    path, named = source if isinstance(source, (tuple, list)) and len(source) == 2 else (source, None)
    if not isinstance(path, (str, Path)):
        raise UsageError(f"textual inversion: {shortened(path)} is neither a file nor a pair of a file and its word")
    words: list[Any] | None = None if named is None else list(named) if isinstance(named, (list, tuple)) else [named]
    if words is not None and (not words or not all(isinstance(word, str) for word in words)):
        raise UsageError(f"textual inversion: the words of {path} should be texts, not {shortened(named)}")
    file = _file(Path(path))
    groups = _groups(file, read_content(file, "textual inversion"))
    if words is not None and len(groups) > 1 and len(words) != len(groups):
        raise UsageError(
            f"textual inversion: {file} holds {len(groups)} words ({', '.join(w or '?' for w, _ in groups)}), "
            f"but {len(words)} were named"
        )
    if words is not None and len(groups) == 1:
        return _named(file, groups[0][1], words)
    inversions = []
    for i, (own, vectors) in enumerate(groups):
        token = own if words is None else words[i]
        if token is None:
            raise UsageError(
                f"textual inversion: {file} holds a tensor without a name; name its word "
                f"(--textual-inversion {file}=WORD, or in Python (file, word))"
            )
        inversions.append(TextualInversion(token=token, vectors=vectors))
    return inversions


def inversions_in_lora(name: str, embeddings: Mapping[str, Mapping[str, _F32]]) -> list[TextualInversion]:
    """Return the words that a LoRA brings (pivotal tuning).

    Args:
        name: of its file; the word where it does not say one.
        embeddings: as :class:`~sdengine.engines.lora.Lora` has them.

    Raises:
        UsageError: a tensor is no embedding.

    """
    file = Path(f"{name}.safetensors")
    inversions = []
    for word, parts in embeddings.items():
        for own, vectors in _groups(file, {part or word: rows for part, rows in parts.items()}):
            inversions.append(TextualInversion(token=word or own or name, vectors=vectors))
    return inversions


def _file(path: Path) -> Path:
    if not os.path.isdir(path):  # false, too, of a name that the system refuses
        return path
    file = next((path / name for name in _IN_FOLDERS if (path / name).is_file()), None)
    if file is None:
        raise UsageError(f"textual inversion: {path} holds neither {' nor '.join(_IN_FOLDERS)}; name the file")
    return file


def _named(file: Path, vectors: dict[str, _F32], words: Sequence[str]) -> list[TextualInversion]:
    """Give one word all rows, or each of several words one."""
    if len(words) == 1:
        return [TextualInversion(token=words[0], vectors=vectors)]
    for name, rows in vectors.items():
        if len(rows) != len(words):
            where = f" for {name}" if name else ""
            raise UsageError(
                f"textual inversion: {file} holds {len(rows)} vectors{where}, but {len(words)} words were named"
            )
    return [
        TextualInversion(token=word, vectors={name: rows[i : i + 1] for name, rows in vectors.items()})
        for i, word in enumerate(words)
    ]


def _groups(file: Path, content: Any) -> list[tuple[str | None, dict[str, _F32]]]:
    """Return what a file holds: the words it names, each with its vectors."""
    if isinstance(content, np.ndarray):
        return [(None, {"": _rows(file, content)})]
    if not isinstance(content, Mapping):
        raise UsageError(f"textual inversion: {file} holds a {type(content).__name__}, not tensors")
    if "string_to_param" in content:
        return _of_the_web_ui(file, content)
    tensors = {str(name): value for name, value in content.items() if name not in _OF_OTHER_FAMILIES}
    if not tensors or not all(isinstance(value, np.ndarray) for value in tensors.values()):
        names = ", ".join(str(name) for name in list(content)[:6])
        raise UsageError(
            f"textual inversion: {file} holds {names}; it should hold tensors by word, string_to_param, or clip_l and "
            "clip_g"
        )
    rows = {name: _rows(file, value) for name, value in tensors.items()}
    if set(rows) <= _ROW_IS_A_WORD:
        count = len(next(iter(rows.values())))
        vectors = {_ENCODERS[name]: values for name, values in rows.items()}
        return [(word.token, word.vectors) for word in _named(file, vectors, [f"<s{i}>" for i in range(count)])]
    if set(rows) <= set(_ENCODERS):
        return [(file.stem, {_ENCODERS[name]: values for name, values in rows.items()})]
    if set(rows) & set(_ENCODERS):
        raise UsageError(
            f"textual inversion: {file} holds {', '.join(rows)}; beside clip_l and clip_g there should be nothing"
        )
    return [(file.stem if name == _NAMELESS else name, {"": values}) for name, values in rows.items()]


def _of_the_web_ui(file: Path, content: Mapping[Any, Any]) -> list[tuple[str | None, dict[str, _F32]]]:
    """Return a file's one word, which ``name`` tells, or its several words, which are what their vectors lie under."""
    parameters = content["string_to_param"]
    values = parameters if isinstance(parameters, Mapping) else {}
    if not values or not all(isinstance(value, np.ndarray) for value in values.values()):
        raise UsageError(f"textual inversion: string_to_param of {file} holds no tensor")
    name = content.get("name")
    named = name if isinstance(name, str) and name else file.stem
    several = len(values) > 1
    return [(str(key) if several and key != "*" else named, {"": _rows(file, rows)}) for key, rows in values.items()]


def _rows(file: Path, values: _F32) -> _F32:
    rows = np.atleast_2d(values)
    if rows.ndim != 2 or not rows.size:
        raise UsageError(f"textual inversion: {file} holds a tensor of shape {list(rows.shape)}, not [vectors, width]")
    return rows


def with_inversions(encoders: Sequence[TextEncoder], inversions: Sequence[TextualInversion]) -> list[TextEncoder]:
    """Return the encoders with these words added; the ones passed in do not change.

    Raises:
        UsageError: a word is taken, or vectors suit none of the encoders.

    """
    tokens: dict[str, list[str]] = {encoder.name: [] for encoder in encoders}
    rows: dict[str, list[_F32]] = {encoder.name: [] for encoder in encoders}
    for inversion in inversions:
        for encoder, vectors in _assign(encoders, inversion):
            words = inversion.tokens[: len(vectors)]
            _check_free(encoder, words, tokens[encoder.name])
            tokens[encoder.name] += words
            rows[encoder.name].append(vectors)
    return [
        encoder.with_placeholders(tokens[encoder.name], np.concatenate(rows[encoder.name]))
        if rows[encoder.name]
        else encoder
        for encoder in encoders
    ]


def inversion_notes(encoders: Sequence[TextEncoder], inversions: Sequence[TextualInversion]) -> list[str]:
    """Say which words only some of the encoders know; the others read them as text, as in diffusers."""
    notes = []
    for inversion in inversions:
        knowing = [encoder.name for encoder, _ in _assign(encoders, inversion)]
        others = [encoder.name for encoder in encoders if encoder.name not in knowing]
        if others:
            notes.append(
                f"textual inversion {inversion.token!r} has vectors for {', '.join(knowing)} only: "
                f"{', '.join(others)} reads it as text"
            )
    return notes


def _assign(encoders: Sequence[TextEncoder], inversion: TextualInversion) -> list[tuple[TextEncoder, _F32]]:
    """Say which vectors go to which encoder."""
    widths = ", ".join(f"{encoder.name} {encoder.width}" for encoder in encoders)
    pairs = []
    for name, vectors in inversion.vectors.items():
        named = [encoder for encoder in encoders if encoder.name == name]
        suited = [encoder for encoder in (named or encoders) if encoder.width == vectors.shape[1]]
        if name and not named:
            continue  # made for SDXL, used with its refiner, which has the second encoder only
        if not suited:
            raise UsageError(
                f"textual inversion {inversion.token!r} has a width of {vectors.shape[1]}; this checkpoint has {widths}"
            )
        if len(suited) > 1:
            raise UsageError(
                f"textual inversion {inversion.token!r} suits several encoders ({widths}): "
                "name its tensors clip_l and clip_g"
            )
        pairs.append((suited[0], vectors))
    if not pairs:
        raise UsageError(
            f"textual inversion {inversion.token!r} is for {', '.join(inversion.vectors)}; this checkpoint has {widths}"
        )
    return pairs


def _check_free(encoder: TextEncoder, words: Sequence[str], taken: Sequence[str]) -> None:
    for word in words:
        if not word.strip():
            raise UsageError("textual inversion: its word is empty")
        if word in taken or encoder.tokenizer.knows(word):
            raise UsageError(
                f"textual inversion: the word {word!r} is already in the vocabulary of {encoder.name}; "
                "give it another token"
            )
