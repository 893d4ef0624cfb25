"""The engine ``tensorrt``."""

from functools import partial

from .library import LIBRARIES
from .plan_engine import PlanEngine
from .unavailable import version_of, why_not

__all__ = ["NAME", "open_plan", "unavailable", "version"]

NAME = "tensorrt"
unavailable = partial(why_not, LIBRARIES[NAME])
version = partial(version_of, LIBRARIES[NAME])
open_plan = partial(PlanEngine, LIBRARIES[NAME])
