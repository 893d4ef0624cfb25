r"""The weights that a prompt's brackets give to its words.

::

    (word:1.3)   weight 1.3            (word)   weight 1.1
    [word]       weight 1 / 1.1        \( \) \[ \] \: \\   the characters themselves
    BREAK        the next word starts a new window, in chunked prompts

Brackets nest and their weights multiply. A bracket without its partner is a character like any other, and so are the
brackets of ``(16:9)``, ``(dex:15)``, ``(at 3:00)`` and ``[cat:dog:0.5]``: weights above 4, of a bare number, or whole
ones behind a number are not weights, and words do not change while an image is denoised. Warnings name them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ...engines.errors import UsageError
from .other_syntax import other_syntax, schedules

__all__ = ["Fragment", "parse_weights"]

_STRONGER = 1.1  # what one pair of round brackets multiplies by, and one pair of square brackets divides by
_FEW = 50  # most pieces between brackets that are examined
_HEAVIEST = 1000.0
_MOST = 4.0  # a weight above this is a time, a ratio or a score

_PIECE = re.compile(
    r"\\(?P<escaped>[\\()\[\]:])"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)"
    r"|(?P<close>[)\]])"
    r"|(?P<break>\bBREAK\b)"
    r"|(?P<text>(?:(?!\bBREAK\b)[^\\()\[\]:])+|.)",
    re.DOTALL,
)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+[.,]?\d*|[.,]\d+)\s*")
_BEHIND_A_NUMBER = re.compile(r"(?<![\w.])\d+$")
_PARTNER = {")": "(", "]": "["}


@dataclass(frozen=True)
class Fragment:
    """A stretch of text and what its embedding is weighted with.

    Attributes:
        text: the text.
        weight: 1 changes nothing.
        new_window: whether it starts a window of the text encoder.

    """

    text: str
    weight: float
    new_window: bool = False


@dataclass
class _Piece:
    """A piece of the prompt as written: ``partner`` is set on a bracket that has found one and means a weight."""

    text: str
    raw: str
    bracket: str = ""
    weight: str | None = None
    breaks: bool = False
    partner: int | None = None
    literal: bool = False


@dataclass
class _Growing:
    """A fragment whose text is not joined yet: long prompts take time in proportion to their length."""

    parts: list[str]
    weight: float
    new_window: bool


def parse_weights(prompt: str, *, breaks: bool = False) -> tuple[list[Fragment], list[str]]:
    """Split a prompt into fragments of one weight each.

    Args:
        prompt: the text.
        breaks: whether ``BREAK`` starts a new window; otherwise it is text.

    Returns:
        The fragments; neighbours differ in weight, or the second starts a new window. And warnings of what in the
        prompt is read as text and may have been meant otherwise.

    Raises:
        UsageError: nested weights multiply to more than 1000.

    """
    pieces = [_piece(match) for match in _PIECE.finditer(prompt)]
    not_weights = _pair_up(pieces)
    growing: list[_Growing] = []
    factors, new_window, words = [1.0], False, False
    for piece in pieces:
        if piece.breaks and breaks:
            new_window = words
        elif piece.partner is None:
            new_window = _append(growing, piece.text, factors[-1], new_window)
            words = words or bool(piece.text.strip())
        elif piece.bracket in "([":
            factors.append(factors[-1] * _factor(piece, pieces[piece.partner]))
            if abs(factors[-1]) > _HEAVIEST:
                raise UsageError(
                    f"brackets of the prompt nest until their weights multiply to more than {_HEAVIEST:g}, "
                    "which no text encoder's output stands; take some out, or set weighting=False"
                )
        else:
            factors.pop()
    stray = [piece.text for piece in pieces if piece.bracket and piece.partner is None and not piece.literal]
    inert = other_syntax(prompt)
    if not breaks and any(piece.breaks for piece in pieces):
        inert.append("BREAK (it starts a new window with long_prompt='chunk')")
    fragments = [Fragment("".join(one.parts), one.weight, one.new_window) for one in growing]
    return fragments or [Fragment("", 1.0)], _warnings(prompt, stray, not_weights, inert)


def _piece(match: re.Match[str]) -> _Piece:
    kind, raw = match.lastgroup, match[0]
    if kind == "escaped":
        return _Piece(match["escaped"], raw)
    if kind == "text":
        return _Piece(raw, raw)
    if kind == "break":
        return _Piece(raw, raw, breaks=True)
    return _Piece(raw, raw, bracket=")" if kind == "weight" else raw, weight=match["weight"])


def _pair_up(pieces: list[_Piece]) -> list[str]:
    """Point every bracket that has a partner at it; a bracket left open inside a closed pair has none.

    Returns:
        The stretches whose brackets give a weight that is not meant, and have become text.

    """
    opened: list[int] = []
    counts = {"(": 0, "[": 0}
    not_weights: list[str] = []
    for i, piece in enumerate(pieces):
        if piece.bracket and piece.bracket in "([":
            opened.append(i)
            counts[piece.bracket] += 1
        elif piece.bracket:
            partner = _PARTNER[piece.bracket]
            if not counts[partner]:
                continue
            first = opened.pop()
            counts[pieces[first].bracket] -= 1
            while pieces[first].bracket != partner:
                first = opened.pop()
                counts[pieces[first].bracket] -= 1
            few = pieces[first + 1 : i] if i - first <= _FEW else []  # so that deep nesting takes no longer
            inside = "".join(inner.raw for inner in few)
            unlikely = piece.weight is not None and _is_unlikely(piece.weight, inside)
            if unlikely or (piece.bracket == "]" and schedules(inside)):
                piece.literal = pieces[first].literal = True
                not_weights += [f"{pieces[first].raw}{inside if few else '...'}{piece.raw}"] if unlikely else []
            else:
                piece.partner, pieces[first].partner = first, i
    return not_weights


def _is_unlikely(weight: str, inside: str) -> bool:
    """Whether this is rather a time, a ratio or a score: ``(16:9)``, ``(at 3:00)``, ``(ratio 3:2)``, ``(dex:15)``."""
    if abs(float(weight)) > _MOST or _NUMBER.fullmatch(inside):
        return True
    return weight.isdigit() and _BEHIND_A_NUMBER.search(inside) is not None


def _factor(opening: _Piece, closing: _Piece) -> float:
    if closing.weight is not None:
        return float(closing.weight)
    return _STRONGER if opening.bracket == "(" else 1.0 / _STRONGER


def _append(growing: list[_Growing], text: str, weight: float, new_window: bool) -> bool:
    """Add text; return whether a new window is still to be started, as long as there is only space."""
    starts = new_window and bool(text.strip())
    if growing and growing[-1].weight == weight and not starts:
        growing[-1].parts.append(text)
    else:
        growing.append(_Growing([text], weight, starts))
    return new_window and not starts


def _warnings(prompt: str, stray: list[str], not_weights: list[str], inert: list[str]) -> list[str]:
    shown = prompt if len(prompt) <= 60 else prompt[:57] + "..."
    warnings = []
    if stray:
        warnings.append(
            f"unbalanced weights in the prompt {shown!r}: {_listed(map(repr, stray))} taken literally "
            "(write \\( for a bracket that is meant)"
        )
    if not_weights:
        warnings.append(
            f"{_listed(not_weights)} in the prompt is read as text: a weight above {_MOST:g}, of a bare number, or a "
            "whole one behind a number, is hardly meant (write \\: for a colon that is text, and 2.0 for a weight of 2)"
        )
    if inert:
        warnings.append(f"not acted on in the prompt {shown!r}, and read as text: {_listed(inert, ', ')}")
    return warnings


def _listed(items: Iterable[str], separator: str = " ") -> str:
    first = [item if len(item) <= 60 else item[:57] + "..." for item in items]
    return separator.join(first[:5]) + (f"{separator}..." if len(first) > 5 else "")
