"""SDXL's invisible watermark, through the optional package ``invisible-watermark``.

The 48 bits and the method, ``dwtDct``, are those of Stability's and diffusers' SDXL pipelines. The package imports
torch as a whole; the one file that the method needs (``maxDct.py``: numpy, OpenCV, PyWavelets) does not, so that file
is loaded by itself.
"""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from ...engines.install_hint import install_hint

__all__ = ["add_watermark", "watermark_available"]

_MESSAGE = 0b101100111110110010010000011110111011000110011110
_BITS = [int(bit) for bit in f"{_MESSAGE:b}"]
_SIDE = 256  # pixels: the package takes no image with fewer than 256 x 256, diffusers none that is narrower


def watermark_available() -> bool:
    """Whether the package and what its ``dwtDct`` needs are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("imwatermark", "cv2", "pywt"))


def add_watermark(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the images with the watermark in them; images too small for it stay as they are.

    Args:
        pixels: RGB [N, height, width, 3], 0 to 1.

    Raises:
        UsageError: the package is not installed.

    """
    height, width = pixels.shape[1:3]
    if width < _SIDE or height * width < _SIDE**2:
        return pixels
    embed = _max_dct().EmbedMaxDct(_BITS, wmLen=len(_BITS))
    marked = [embed.encode(np.ascontiguousarray(255.0 * image[..., ::-1], np.float32)) for image in pixels]
    return np.clip(np.stack(marked)[..., ::-1] / np.float32(255.0), 0.0, 1.0)


@functools.cache
def _max_dct() -> ModuleType:
    if not watermark_available():
        raise UsageError(f"the watermark needs the package invisible-watermark: {install_hint('watermark')}")
    package = importlib.util.find_spec("imwatermark")
    assert package is not None and package.origin is not None
    spec = importlib.util.spec_from_file_location("imwatermark_max_dct", Path(package.origin).with_name("maxDct.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
