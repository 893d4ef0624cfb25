"""SD 1.5 at its published size."""

from .full_size import Case, run_case
from .record import Record
from .setting import Setting

__all__ = ["run"]


def run(setting: Setting, record: Record) -> None:
    """See the module."""
    run_case(setting, record, Case(kind="sd15", size=512, steps=50, guidance=7.5, batches=(1,), rounds=5))
