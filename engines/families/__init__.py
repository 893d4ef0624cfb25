"""The supported model families. Adding one adds a file here and a line in :data:`FAMILIES`."""

from .family import Defaults, Family, Stage, TextReading
from .kandinsky import KANDINSKY22
from .sdxl import SDXL, SDXL_REFINER
from .stable_diffusion import SD1, SD2

__all__ = ["FAMILIES", "Defaults", "Family", "Stage", "TextReading"]

FAMILIES: dict[str, Family] = {family.name: family for family in (SD1, SD2, SDXL, SDXL_REFINER, KANDINSKY22)}
"""By name."""
