"""Solvers as tables of matrices: :func:`make_schedule` computes a table from a scheduler's config and its settings."""

from .combinations import STATE_SLOTS
from .make import make_schedule
from .schedule import Schedule
from .solver_registry import solver_names

__all__ = ["STATE_SLOTS", "Schedule", "make_schedule", "solver_names"]
