"""A prompt's tokens laid out in the windows of a text encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError, nearest
from .bracket_weights import Fragment
from .tokenizer import Tokenizer

__all__ = ["Layout", "LongPrompt", "lay_out"]

LongPrompt = Literal["truncate", "chunk"]

_NO_FRAGMENT = -1  # owner of markers and padding


@dataclass(frozen=True, kw_only=True)
class Layout:
    """C windows of T tokens (77 for CLIP), each with its start and end markers and filled up with padding."""

    ids: NDArray[np.int64]
    """[C, T]"""
    weights: NDArray[np.float32]
    """[C, T], 1 on markers and padding"""
    without: tuple[tuple[float, NDArray[np.int64]], ...]
    """For every fragment with a weight below 1: the weight, and the attention mask [C, T] that hides it (0 there)."""
    cut: tuple[int, ...]
    """The ids that did not fit and were left out."""
    filled: NDArray[np.float32]
    """[C, T], 1 on tokens and markers, 0 on padding"""

    @property
    def weighted(self) -> bool:
        """Whether any token has another weight than 1."""
        return bool((self.weights != 1.0).any())


def lay_out(tokenizer: Tokenizer, fragments: Sequence[Fragment], long_prompt: LongPrompt = "truncate") -> Layout:
    """Tokenise fragments, each by itself, and lay them out.

    Args:
        tokenizer: the text encoder's.
        fragments: text and weights, in order.
        long_prompt: what to do with tokens beyond the 75 of a window: ``"truncate"`` drops them, ``"chunk"`` starts
            another window, also at each fragment with ``new_window``.

    Raises:
        UsageError: a text is not valid Unicode, or ``long_prompt`` is unknown.

    """
    if long_prompt not in get_args(LongPrompt):
        known = get_args(LongPrompt)
        raise UsageError(
            f"unknown long_prompt {long_prompt!r}: it is {' or '.join(known)}{nearest(long_prompt, known)}"
        )
    encoded = [tokenizer.encode(fragment.text) for fragment in fragments]
    ids = [i for part in encoded for i in part]
    owners = [number for number, part in enumerate(encoded) for _ in part]
    count = len(ids) if long_prompt == "chunk" else min(len(ids), tokenizer.max_length - 2)
    breaks = [owners.index(number) for number, part in enumerate(encoded) if fragments[number].new_window and part]
    window_ids, window_owners = _windows(
        tokenizer, ids[:count], owners[:count], breaks if long_prompt == "chunk" else ()
    )
    factors = np.array([*(fragment.weight for fragment in fragments), 1.0], np.float32)  # the last is _NO_FRAGMENT's
    return Layout(
        ids=window_ids,
        weights=factors[window_owners],
        without=_masks(fragments, window_owners, _cut_in_two(owners, count)),
        cut=tuple(ids[count:]),
        filled=_filled(window_owners),
    )


def _cut_in_two(owners: Sequence[int], count: int) -> int | None:
    """Return the fragment of which only the end was cut off; the first one does not count, see :func:`_masks`."""
    if count == len(owners) or owners[count - 1] != owners[count] or owners[count] == owners[0]:
        return None
    return owners[count]


def _masks(
    fragments: Sequence[Fragment], owners: NDArray[np.int64], cut_in_two: int | None
) -> tuple[tuple[float, NDArray[np.int64]], ...]:
    """Attention masks that hide one fragment of weight below 1 each.

    Compel (2.x, ``_get_token_ranges_for_fragments``) takes a fragment that was cut in two, unless it is the first,
    to run to the end of the window, so that its mask also hides the end marker.
    """
    masks = []
    for i, fragment in enumerate(fragments):
        if fragment.weight < 1.0 and (owners == i).any():
            mask = (owners != i).astype(np.int64)
            if i == cut_in_two:
                mask[-1, -1] = 0
            masks.append((fragment.weight, mask))
    return tuple(masks)


def _filled(owners: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mark the tokens of each window, and the markers around them."""
    tokens = (owners != _NO_FRAGMENT).sum(axis=1, keepdims=True)
    return np.asarray(np.arange(owners.shape[1]) < tokens + 2, np.float32)


def _windows(
    tokenizer: Tokenizer, ids: Sequence[int], owners: Sequence[int], breaks: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut the ids into windows; also say, for every position, which fragment its token is from.

    Args:
        tokenizer: the text encoder's.
        ids: of the tokens.
        owners: the fragment of each token.
        breaks: positions at which a new window starts in any case.

    """
    length = tokenizer.max_length
    room = length - 2
    limits = [0, *breaks, len(ids)]
    parts = [slice(i, min(i + room, end)) for start, end in pairwise(limits) for i in range(start, end, room)]
    parts = parts or [slice(0, 0)]
    window_ids = np.full((len(parts), length), tokenizer.pad, np.int64)
    window_owners = np.full((len(parts), length), _NO_FRAGMENT, np.int64)
    for c, part in enumerate(parts):
        count = part.stop - part.start
        window_ids[c, 0], window_ids[c, count + 1] = tokenizer.bos, tokenizer.eos
        window_ids[c, 1 : count + 1] = ids[part]
        window_owners[c, 1 : count + 1] = owners[part]
    return window_ids, window_owners
