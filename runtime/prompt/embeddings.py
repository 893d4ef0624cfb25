"""Embeddings of texts and of images in files: what diffusers calls ``prompt_embeds``, ``image_embeds`` and so on."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from ...engines.errors import UsageError, nearest
from .prompt_request import EMBEDDINGS
from .tensors import read_tensors

__all__ = ["embeddings_file", "load_embeddings"]

_AXES = {**EMBEDDINGS, "image_embeds": 2, "negative_image_embeds": 2}


def embeddings_file(embeddings: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return the contents of a ``.safetensors`` file that :func:`load_embeddings` reads."""
    content: bytes = safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in embeddings.items()})
    return content


def load_embeddings(path: str | Path) -> dict[str, NDArray[np.float32]]:
    """Read a file's embeddings, by the names of a request's arguments.

    The file, a ``.safetensors`` or ``.pt``, may hold ``prompt_embeds`` and ``negative_prompt_embeds``
    [prompts, tokens, width], ``pooled_prompt_embeds`` and ``negative_pooled_prompt_embeds`` [prompts, width], or
    ``image_embeds`` and ``negative_image_embeds`` [prompts, width]. Without the axis of prompts, there is one.
    Widths are checked against the checkpoint when they are used.

    Raises:
        UsageError: the file does not exist, is no safe format, or holds something else.

    """
    tensors = read_tensors(path, "embeddings")
    for name, values in tensors.items():
        if name not in _AXES:
            suggestion = nearest(name, _AXES) or f"; known are {', '.join(_AXES)}"
            raise UsageError(f"embeddings: unknown tensor {name!r} in {path}{suggestion}")
        if values.ndim == _AXES[name] - 1:
            tensors[name] = values[None]
    return tensors
