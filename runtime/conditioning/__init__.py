"""What samples are conditioned on: text and sizes, the known part of an inpainted image, ControlNets.

Adding a condition adds a file here and a line in :data:`CONDITIONS`.
"""

from .condition import Condition, Part, Preparation
from .controlnet import ControlNets
from .inpainting import Inpainting
from .text import TextAndSizes

__all__ = ["CONDITIONS", "Condition", "Part", "Preparation"]

CONDITIONS: tuple[Condition, ...] = (TextAndSizes(), Inpainting(), ControlNets())
