"""Embeds images: prepared as CLIP's image processor does, and run through the bundle's image encoder."""

from collections.abc import Mapping
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.nets.image_encoder_config import ImageEncoderConfig
from ..open_engines import Components
from ..request.input_images import InputImage, pixel_array
from ..request.pil_images import as_bytes

__all__ = ["ImageEncoder"]

F32 = NDArray[np.float32]
_SETTINGS = "image_processor.json"


class ImageEncoder:
    """A bundle's image encoder.

    Args:
        bundle: the bundle.
        components: its engines.
        name: the component.

    """

    def __init__(self, bundle: Bundle, components: Components, name: str) -> None:
        config = bundle.config(name)
        assert isinstance(config, ImageEncoderConfig)
        settings: Mapping[str, Any] = bundle.settings(_SETTINGS)
        self._components = components
        self._name = name
        self._size = config.size
        self._mean = np.asarray(settings["mean"], np.float32)
        self._std = np.asarray(settings["std"], np.float32)
        self._rescale = float(settings["rescale"])
        self._of_zeros: F32 | None = None
        self._lock = Lock()

    def of_zeros(self) -> F32:
        """Return the embedding of an image of zeros, which are not the numbers of a black one, float32 [D].

        It stands for "no image", and is the same for every request: the encoder is run once.
        """
        with self._lock:
            if self._of_zeros is None:
                pixels = np.zeros((1, self._size, self._size, 3), np.float32)
                outputs = self._components.run_once(self._name, {"pixels": pixels})
                self._of_zeros = np.asarray(outputs["image_embeds"][0], np.float32)
            return self._of_zeros

    def embed(self, image: InputImage) -> F32:
        """Return an image's embedding, float32 [D]."""
        return self._embed(self._prepared(image)[None])

    def embed_prepared(self, pixels: F32) -> F32:
        """Return the embedding of an image that has been prepared, [1, 3, size, size].

        Raises:
            UsageError: it has another shape.

        """
        needed = (1, 3, self._size, self._size)
        if pixels.shape != needed:
            raise UsageError(f"a prepared image has shape {list(pixels.shape)}; {list(needed)} is needed")
        return self._embed(np.moveaxis(pixels, 1, -1))

    def _embed(self, pixels: F32) -> F32:
        outputs = self._components.run(self._name, {"pixels": np.ascontiguousarray(pixels)})
        return np.asarray(outputs["image_embeds"][0], np.float32)

    def _prepared(self, image: InputImage) -> F32:
        """Resize so that the shorter side fits, cut out the middle, take mean and deviation out; [size, size, 3]."""
        size = self._size
        if isinstance(image, Image.Image):
            pixels = np.asarray(self._fitted(as_bytes(image).convert("RGB")))
            scaled = (pixels * np.float64(self._rescale)).astype(np.float32)
        else:
            scaled = pixel_array([image], size, size)[0]
        normal: F32 = (scaled - self._mean) / self._std
        return normal

    def _fitted(self, image: Image.Image) -> Image.Image:
        size, short = self._size, min(image.size)
        longer = int(size * max(image.size) / short)
        width, height = (size, longer) if image.width <= image.height else (longer, size)
        resized = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - size) // 2, (height - size) // 2
        return resized.crop((left, top, left + size, top + size))
