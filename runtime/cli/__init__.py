"""The command line: ``sdengine`` and its commands."""

from .main import main

__all__ = ["main"]
