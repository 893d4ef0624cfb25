"""Linear combinations of the tensors of an evaluation, so that formulas of papers can be written as they stand.

Everything a solver computes in a step is a linear combination of the same few tensors: the entries of the state, the
network's output, the clipped x0 and fresh noise. A combination is represented by its factors, an array
``[COLUMNS, N]`` with one column per evaluation. So a formula of a paper, written with numpy operators, gives the
factors for all N evaluations at once: ``(x - sigma * eps) / alpha`` works as it stands if ``sigma`` and ``alpha`` are
``[N]``.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ...engines.component_specs import STATE_SLOTS, UPDATE_TERMS

__all__ = ["CLIPPED", "COLUMNS", "NOISE", "OUTPUT", "STATE_SLOTS", "Array", "Indices", "X", "state", "update_table"]

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

COLUMNS = UPDATE_TERMS

_BASIS: Array = np.eye(COLUMNS)[:, :, None]


def state(index: int) -> Array:
    """Return the combination that is entry ``index`` of the state, ``[COLUMNS, 1]``."""
    row: Array = _BASIS[index]
    return row


X = state(0)
"""The latent."""

OUTPUT = state(STATE_SLOTS)
"""The network's output at this evaluation, after guidance."""

CLIPPED = state(STATE_SLOTS + 1)
"""The predicted x0, clipped to the configured range."""

NOISE = state(STATE_SLOTS + 2)
"""Standard normal noise, fresh for this evaluation."""


def update_table(new_state: Mapping[int, Array], evaluations: int) -> Array:
    """Stack combinations into the table ``[N, STATE_SLOTS, COLUMNS]``; entries of the state without one become zero."""
    table = np.zeros((evaluations, STATE_SLOTS, COLUMNS))
    for index, row in new_state.items():
        table[:, index] = row.T
    return table
