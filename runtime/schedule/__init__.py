"""Solvers as tables of matrices: :func:`make_schedule` turns a scheduler config and a request into numbers."""

from .make import make_schedule
from .rows import STATE_SLOTS
from .schedule import Schedule
from .solver_registry import solver_names

__all__ = ["STATE_SLOTS", "Schedule", "make_schedule", "solver_names"]
