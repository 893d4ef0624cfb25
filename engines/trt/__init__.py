"""TensorRT and TensorRT for RTX: compiling the components of a bundle to plans."""

from .build import BuildProgress, BuiltPlan, build_engines, check_options
from .library import LIBRARIES
from .options import TARGETS, BuildOptions
from .record import PlanRecord

__all__ = [
    "LIBRARIES",
    "TARGETS",
    "BuildOptions",
    "BuildProgress",
    "BuiltPlan",
    "PlanRecord",
    "build_engines",
    "check_options",
]
