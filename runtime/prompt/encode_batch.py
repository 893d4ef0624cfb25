"""Layouts -> embeddings: one call of a text encoder for all that it has to encode at a layer."""

from collections.abc import Sequence

import numpy as np

from .bracket_weights import Fragment
from .encoder import Hidden, TextEncoder, Window
from .layout import Layout, lay_out
from .weighting import combine, windows_of

__all__ = ["encode_layouts"]


def encode_layouts(encoder: TextEncoder, layouts: Sequence[Layout], layer: int, windows: int) -> tuple[Hidden, Hidden]:
    """Encode N layouts and fill each up to the given number of windows with the empty prompt's embeddings.

    Returns:
        hidden [N, windows * T, D], and pooled [N, P] of each layout's first window, to which weights do not apply.

    """
    jobs = [windows_of(layout) for layout in layouts]
    empty = Window(lay_out(encoder.tokenizer, [Fragment("", 1.0)]).ids[0])
    needs_empty = any(layout.weighted or len(layout.ids) < windows for layout in layouts)
    results = encoder.encode([window for job in jobs for window in job] + [empty] * needs_empty, layer)
    nothing = results[-1][0]
    hidden, pooled, start = [], [], 0
    for layout, job in zip(layouts, jobs, strict=True):
        states = [state for state, _ in results[start : start + len(job)]]
        filler = [nothing] * (windows - len(layout.ids))
        hidden.append(np.concatenate([combine(layout, states, nothing), *filler]))
        pooled.append(results[start][1])
        start += len(job)
    return np.stack(hidden), np.stack(pooled)
