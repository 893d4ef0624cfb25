"""What samples are conditioned on: text and sizes, the known part of an inpainted image, ControlNets.

Adding a condition adds a file here, a line in :data:`CONDITIONS`, and its name to the families that have it.
"""

from .condition import Condition, Part, Preparation
from .controlnet import ControlNets
from .inpainting import Inpainting
from .text import TextAndSizes

__all__ = ["CONDITIONS", "Condition", "Part", "Preparation"]

CONDITIONS: dict[str, Condition] = {"text": TextAndSizes(), "inpainting": Inpainting(), "controlnets": ControlNets()}
"""By the name that families call them."""
