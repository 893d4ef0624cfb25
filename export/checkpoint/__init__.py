"""Reading checkpoints: what is in them, under today's names, without reading a weight.

::

    checkpoint = open_checkpoint("path/to/model.safetensors")
    checkpoint.components["unet"].tensors["conv_in.weight"].read()

Nothing of a file is executed, and every offset is checked against the file before it is used.
"""

from .component import Checkpoint, CheckpointComponent
from .open import open_checkpoint, open_controlnet
from .tensor import DTYPES, TensorSource
from .verify import expected_shapes

__all__ = [
    "DTYPES",
    "Checkpoint",
    "CheckpointComponent",
    "TensorSource",
    "expected_shapes",
    "open_checkpoint",
    "open_controlnet",
]
