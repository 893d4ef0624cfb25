"""Algebra on the tensors of one evaluation.

Everything a solver computes in a step is a linear combination of the same few tensors: the state slots, the
network's output, the clipped x0 and fresh noise. A combination is represented by its factors, an array
``[COLUMNS, N]``: one column per evaluation, so that a formula of a paper, typed with numpy operators, yields the
factors of all N evaluations at once. ``(x - sigma * eps) / alpha`` works as written when ``sigma`` and ``alpha`` are
``[N]``.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...engines.component_specs import STATE_SLOTS, UPDATE_TERMS

__all__ = ["CLIPPED", "COLUMNS", "NOISE", "OUTPUT", "STATE_SLOTS", "Array", "Indices", "X", "slot", "update_table"]

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

COLUMNS = UPDATE_TERMS

_BASIS: Array = np.eye(COLUMNS)[:, :, None]


def slot(index: int) -> Array:
    """Return the combination that is state slot ``index``, ``[COLUMNS, 1]``."""
    row: Array = _BASIS[index]
    return row


X = slot(0)
"""The latent."""

OUTPUT = slot(STATE_SLOTS)
"""What the network returned at this evaluation (after guidance)."""

CLIPPED = slot(STATE_SLOTS + 1)
"""The predicted x0, clipped to a range."""

NOISE = slot(STATE_SLOTS + 2)
"""Standard normal noise, fresh for this evaluation."""


def update_table(new_state: Mapping[int, Array], evaluations: int) -> Array:
    """Stack combinations into the table ``[N, STATE_SLOTS, COLUMNS]``; a slot that is not named becomes zero."""
    table = np.zeros((evaluations, STATE_SLOTS, COLUMNS))
    for index, row in new_state.items():
        table[:, index] = row.T
    return table
