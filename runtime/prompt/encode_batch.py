"""Encodes layouts: one call of a text encoder for all layouts whose embeddings are taken from the same layer."""

from collections.abc import Sequence

import numpy as np

from .bracket_weights import Fragment
from .encoder import Hidden, TextEncoder, Window
from .layout import Layout, lay_out
from .weighting import combine, windows_of

__all__ = ["encode_layouts"]


def encode_layouts(encoder: TextEncoder, layouts: Sequence[Layout], layer: int, windows: int) -> tuple[Hidden, Hidden]:
    """Encode N layouts; those with fewer windows than ``windows`` are filled with the empty prompt's embeddings.

    Returns:
        hidden [N, windows * T, D], and pooled [N, P] of each layout's first window, to which weights do not apply.

    """
    by_layout = [windows_of(layout) for layout in layouts]
    empty = Window(lay_out(encoder.tokenizer, [Fragment("", 1.0)]).ids[0])
    needs_empty = any(layout.weighted or len(layout.ids) < windows for layout in layouts)
    results = encoder.encode([w for layout_windows in by_layout for w in layout_windows] + [empty] * needs_empty, layer)
    empty_states = results[-1][0]
    hidden, pooled, start = [], [], 0
    for layout, layout_windows in zip(layouts, by_layout, strict=True):
        states = [state for state, _ in results[start : start + len(layout_windows)]]
        filler = [empty_states] * (windows - len(layout.ids))
        hidden.append(np.concatenate([combine(layout, states, empty_states), *filler]))
        pooled.append(results[start][1])
        start += len(layout_windows)
    return np.stack(hidden), np.stack(pooled)
