"""SDXL at its published size: our torch engine in its three ways, against diffusers eager and compiled."""

from .cases import CASES
from .full_size import run_case
from .record import Record
from .setting import Setting

__all__ = ["run"]


def run(setting: Setting, record: Record) -> None:
    """See the module."""
    run_case(setting, record, CASES["sdxl"])
