"""Solvers as tables of matrices: :func:`make_schedule` turns a scheduler config and a request into numbers."""

from .make import make_schedule
from .registry import solver_names
from .rows import STATE_SLOTS
from .table import Schedule

__all__ = ["STATE_SLOTS", "Schedule", "make_schedule", "solver_names"]
