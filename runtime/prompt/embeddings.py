"""Embeddings made elsewhere, from a ``.safetensors`` or ``.pt``: what diffusers calls ``prompt_embeds`` and so on."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError, nearest
from .prompt_request import EMBEDDINGS
from .tensors import read_tensors

__all__ = ["load_embeddings"]


def load_embeddings(path: str | Path) -> dict[str, NDArray[np.float32]]:
    """Read a file's embeddings, by the names that :class:`~.request.PromptRequest` takes them under.

    The file may hold ``prompt_embeds`` and ``negative_prompt_embeds`` [prompts, tokens, width], and
    ``pooled_prompt_embeds`` and ``negative_pooled_prompt_embeds`` [prompts, width]. Without the axis of prompts,
    there is one. Widths are checked against the checkpoint when they are used.

    Raises:
        UsageError: the file is not there, not safe, or holds something else.

    """
    tensors = read_tensors(path, "prompt embeddings")
    for name, values in tensors.items():
        if name not in EMBEDDINGS:
            hint = nearest(name, EMBEDDINGS) or f"; known are {', '.join(EMBEDDINGS)}"
            raise UsageError(f"prompt embeddings: unknown tensor {name!r} in {path}{hint}")
        if values.ndim == EMBEDDINGS[name] - 1:
            tensors[name] = values[None]
    return tensors
