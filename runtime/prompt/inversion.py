"""Textual inversion (Gal et al. 2022, arXiv:2208.01618): a learned vector, or several, behind a word of one's own.

Files in use, all ``.safetensors``: ``clip_l`` and ``clip_g`` for SDXL's two encoders; one tensor named after the word
(diffusers); ``emb_params`` (AUTOMATIC1111's web UI).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from .encoder import TextEncoder
from .tensors import read_tensors

__all__ = ["TextualInversion", "load_inversion", "with_inversions"]

_ENCODERS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
_NAMELESS = {*_ENCODERS, "emb_params"}


@dataclass(frozen=True, kw_only=True)
class TextualInversion:
    """A word and the vectors it stands for.

    Attributes:
        token: the word as it is written in prompts; found anywhere in a text, in any case.
        vectors: f32 [n, D], by the component they are for; under "" if the width has to tell.

    """

    token: str
    vectors: dict[str, NDArray[np.float32]]

    @property
    def tokens(self) -> list[str]:
        """The words for all n vectors; a prompt with the first is read as if it had them all."""
        longest = max(len(rows) for rows in self.vectors.values())
        return [self.token, *(f"{self.token}_{i}" for i in range(1, longest))]


def load_inversion(path: str | Path, token: str | None = None) -> TextualInversion:
    """Read an embedding file.

    Args:
        path: a ``.safetensors`` file.
        token: the word; by default the name of the file's tensor, or of the file if that says nothing.

    Raises:
        UsageError: the file is not there, not safe, or holds something else.

    """
    tensors = read_tensors(path, "textual inversion")
    names = set(tensors)
    if not (names <= set(_ENCODERS) or len(names) == 1):
        raise UsageError(
            f"textual inversion: {path} holds {', '.join(sorted(names)[:6])}; "
            "it should hold clip_l and clip_g, or one tensor"
        )
    own = next(iter(names - _NAMELESS), Path(path).stem)
    vectors = {_ENCODERS.get(name, ""): np.atleast_2d(values) for name, values in tensors.items()}
    for rows in vectors.values():
        if rows.ndim != 2 or not rows.size:
            raise UsageError(
                f"textual inversion: {path} holds a tensor of shape {list(rows.shape)}, not [vectors, width]"
            )
    return TextualInversion(token=own if token is None else token, vectors=vectors)


def with_inversions(encoders: Sequence[TextEncoder], inversions: Sequence[TextualInversion]) -> list[TextEncoder]:
    """Return the encoders with these words added; the ones passed in do not change.

    Raises:
        UsageError: a word is taken, or vectors suit none of the encoders.

    """
    tokens: dict[str, list[str]] = {encoder.name: [] for encoder in encoders}
    rows: dict[str, list[NDArray[np.float32]]] = {encoder.name: [] for encoder in encoders}
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


def _assign(
    encoders: Sequence[TextEncoder], inversion: TextualInversion
) -> list[tuple[TextEncoder, NDArray[np.float32]]]:
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
