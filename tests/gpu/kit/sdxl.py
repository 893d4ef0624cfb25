"""SDXL at its published size: our torch engine in its three ways, against diffusers eager and compiled."""

from .full_size import Case, run_case
from .record import Record
from .setting import Setting

__all__ = ["run"]


def run(setting: Setting, record: Record) -> None:
    """See the module."""
    run_case(setting, record, Case(kind="sdxl", size=1024, steps=30, guidance=5.0, batches=(1, 4), rounds=5))
