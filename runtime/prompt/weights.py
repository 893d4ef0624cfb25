r"""The weights that a prompt's brackets give to its words.

::

    (word:1.3)   weight 1.3            (word)   weight 1.1
    [word]       weight 1 / 1.1        \( \) \[ \] \\   the characters themselves

Brackets nest and their weights multiply. A bracket without its partner is a character like any other, and the caller
is told so.
"""

import re
from dataclasses import dataclass

__all__ = ["Fragment", "parse_weights"]

_STRONGER = 1.1  # what one pair of round brackets multiplies by, and one pair of square brackets divides by

_PIECE = re.compile(
    r"\\(?P<escaped>[\\()\[\]])"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<close>[)\]])"
    r"|(?P<text>[^\\()\[\]:]+|.)",
    re.DOTALL,
)
_PARTNER = {")": "(", "]": "["}


@dataclass(frozen=True)
class Fragment:
    """A stretch of text and what its embedding is weighted with."""

    text: str
    weight: float


@dataclass
class _Piece:
    """A piece of the prompt as written: ``factor`` is set on a bracket that has found its partner."""

    text: str
    bracket: str = ""
    weight: str | None = None
    partner: int | None = None


def parse_weights(prompt: str) -> tuple[list[Fragment], list[str]]:
    """Split a prompt into fragments of one weight each, neighbours differing, and warnings about its brackets."""
    pieces = [_piece(match) for match in _PIECE.finditer(prompt)]
    _pair_up(pieces)
    fragments: list[Fragment] = []
    factors = [1.0]
    for piece in pieces:
        if piece.partner is None:
            _append(fragments, piece.text, factors[-1])
        elif piece.bracket in "([":
            factors.append(factors[-1] * _factor(piece, pieces[piece.partner]))
        else:
            factors.pop()
    stray = [piece.text for piece in pieces if piece.bracket and piece.partner is None]
    return fragments or [Fragment("", 1.0)], _warnings(prompt, stray)


def _piece(match: re.Match[str]) -> _Piece:
    kind = match.lastgroup
    if kind == "escaped":
        return _Piece(match["escaped"])
    if kind == "text":
        return _Piece(match[0])
    return _Piece(match[0], bracket=")" if kind == "weight" else match[0], weight=match["weight"])


def _pair_up(pieces: list[_Piece]) -> None:
    """Point every bracket that has a partner at it; a bracket left open inside a closed pair has none."""
    opened: list[int] = []
    for i, piece in enumerate(pieces):
        if piece.bracket and piece.bracket in "([":
            opened.append(i)
        elif piece.bracket:
            matching = [j for j in opened if pieces[j].bracket == _PARTNER[piece.bracket]]
            if matching:
                piece.partner, pieces[matching[-1]].partner = matching[-1], i
                del opened[opened.index(matching[-1]) :]


def _factor(opening: _Piece, closing: _Piece) -> float:
    if closing.weight is not None:
        return float(closing.weight)
    return _STRONGER if opening.bracket == "(" else 1.0 / _STRONGER


def _append(fragments: list[Fragment], text: str, weight: float) -> None:
    if fragments and fragments[-1].weight == weight:
        fragments[-1] = Fragment(fragments[-1].text + text, weight)
    else:
        fragments.append(Fragment(text, weight))


def _warnings(prompt: str, stray: list[str]) -> list[str]:
    if not stray:
        return []
    shown = prompt if len(prompt) <= 60 else prompt[:57] + "..."
    marks = " ".join(repr(mark) for mark in stray[:5]) + (" ..." if len(stray) > 5 else "")
    return [
        f"unbalanced weights in the prompt {shown!r}: {marks} taken literally (write \\( for a bracket that is meant)"
    ]
