"""TensorRT and TensorRT for RTX: compiling the components of a bundle to plans."""

from .build_options import TARGETS, BuildOptions
from .build_plans import BuildProgress, BuiltPlan, build_engines, check_options
from .build_table import COLUMNS, rows_of
from .library import LIBRARIES
from .plan_memory import MemoryEstimate, PlanMemory, memory_estimates
from .plan_record import PlanRecord, read_record

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
