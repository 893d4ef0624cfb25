"""What samples are conditioned on: text and sizes, an image to inpaint, ControlNets, the embedding of an image.

Adding a condition adds a file here, a line in :data:`CONDITIONS`, and its name to the families that have it.
"""

from .condition import Condition, Part, Preparation
from .controlnets import ControlNets
from .hint import Hint
from .image_embedding import ImageEmbedding
from .inpainting import Inpainting
from .text import TextAndSizes

__all__ = ["CONDITIONS", "Condition", "Part", "Preparation"]

CONDITIONS: dict[str, Condition] = {
    "text": TextAndSizes(),
    "image_embedding": ImageEmbedding(),
    "inpainting": Inpainting(),
    "hint": Hint(),
    "controlnets": ControlNets(),
}
"""By the names that :attr:`~sdengine.engines.families.Family.conditions` has."""
