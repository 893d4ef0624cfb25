"""Embeds images: prepared as CLIP's image processor does, and run through the bundle's image encoder."""

from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engines.bundle.bundle import Bundle
from ...engines.errors import UsageError
from ...engines.nets.image_encoder_config import ImageEncoderConfig
from ..open_engines import Components
from ..request.clip_pixels import ClipPixels
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
        self._components = components
        self._name = name
        self._size = config.size
        self._pixels = ClipPixels.of(bundle.settings(_SETTINGS), config.size)
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
        """Return what the encoder takes, [size, size, 3]; an array is of its size and has values of 0 to 1."""
        if isinstance(image, Image.Image):
            return self._pixels.prepared(as_bytes(image))
        return self._pixels.normalised(pixel_array([image], self._size, self._size)[0])
