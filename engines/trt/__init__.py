"""TensorRT and TensorRT for RTX: compiling the components of a bundle to plans."""

from .build import BuildProgress, BuiltPlan, build_engines, check_options
from .library import LIBRARIES
from .options import TARGETS, BuildOptions
from .plan_memory import MemoryEstimate, PlanMemory, memory_estimates
from .record import PlanRecord, read_record
from .table import COLUMNS, rows_of

__all__ = [
    "COLUMNS",
    "LIBRARIES",
    "TARGETS",
    "BuildOptions",
    "BuildProgress",
    "BuiltPlan",
    "MemoryEstimate",
    "PlanMemory",
    "PlanRecord",
    "build_engines",
    "check_options",
    "memory_estimates",
    "read_record",
    "rows_of",
]
