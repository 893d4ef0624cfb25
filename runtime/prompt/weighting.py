"""What a weight does to an embedding.

The rules are Compel's (https://github.com/damian0815/compel, 2.x, ``embeddings_provider.py``). With z the hidden
states of the prompt and z0 those of the empty prompt, a token of weight w becomes ``z0 + w (z - z0)``. For every
fragment of weight w below 1, the prompt is encoded once more with that fragment hidden from attention, and the
results are averaged with the factors 1 for the prompt itself and ``tan((1 - w) pi / 2)`` for the prompt without it.
"""

import math
from collections.abc import Sequence

import numpy as np

from .encoder import Hidden, Window
from .layout import Layout

__all__ = ["combine", "windows_of"]

_SMALLEST = 1e-5  # the weight at which tan() is cut off


def windows_of(layout: Layout) -> list[Window]:
    """Return the windows to encode for a layout, in the order in which :func:`combine` takes the results.

    First the prompt's own C windows, then for each hidden fragment C windows.
    """
    windows = [Window(ids) for ids in layout.ids]
    for _, masks in layout.without:
        windows += [Window(ids, mask) for ids, mask in zip(layout.ids, masks, strict=True)]
    return windows


def combine(layout: Layout, hidden: Sequence[Hidden], empty: Hidden) -> Hidden:
    """Weight the hidden states of :func:`windows_of`.

    Args:
        layout: the prompt's tokens and weights, C windows.
        hidden: [T, D] for each window.
        empty: [T, D] of the empty prompt.

    Returns:
        [C * T, D].

    """
    count = len(layout.ids)
    versions = [_scaled(layout, hidden[start : start + count], empty) for start in range(0, len(hidden), count)]
    if len(versions) == 1:
        return versions[0]
    factors = [1.0, *(math.tan((1.0 - max(weight, _SMALLEST)) * math.pi / 2.0) for weight, _ in layout.without)]
    shares = np.array(factors, np.float32) / np.float32(sum(factors))
    return np.asarray(sum(share * version for share, version in zip(shares, versions, strict=True)), np.float32)


def _scaled(layout: Layout, hidden: Sequence[Hidden], empty: Hidden) -> Hidden:
    """Scale each token's distance from the empty prompt; tokens of weight 1 keep their very bits."""
    parts = []
    for z, w in zip(hidden, layout.weights[..., None], strict=True):
        parts.append(np.where(w == 1.0, z, empty + (z - empty) * w))
    return np.concatenate(parts)
