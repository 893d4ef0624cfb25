"""LoRA and its relatives: files of changes to a checkpoint's weights. Reading them, and what the weights become.

Needs numpy and safetensors, no torch. ``names.py`` and ``keys.py`` say what files call things, ``formulas.py`` what
they mean, ``strength.py`` how strongly they are applied.
"""

from .file import Lora, components_of, read_lora
from .merge import Merge, merges, rounded
from .names import Networks
from .overlay import networks_of, with_loras
from .peft_config import CONFIG as FOLDER_CONFIG
from .source import LoraSource, parse_lora, read_loras, sources_of
from .strength import COMPONENTS, Strength, Strengths, strengths_of

__all__ = [
    "COMPONENTS",
    "FOLDER_CONFIG",
    "Lora",
    "LoraSource",
    "Merge",
    "Networks",
    "Strength",
    "Strengths",
    "components_of",
    "merges",
    "networks_of",
    "parse_lora",
    "read_lora",
    "read_loras",
    "rounded",
    "sources_of",
    "strengths_of",
    "with_loras",
]
