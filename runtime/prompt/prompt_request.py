"""The arguments of prompts, and their checks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...engines.errors import UsageError
from .layout import LongPrompt

__all__ = ["EMBEDDINGS", "PromptRequest", "Texts"]

Texts = str | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """Prompts of one request, under diffusers' names.

    A request has B prompts: as many as the list ``prompt`` has entries, or ``prompt_embeds`` rows. A single string
    stands for all of them.

    Attributes:
        prompt: the text.
        prompt_2: the text for the second text encoder; None is ``prompt``.
        negative_prompt: text that guidance leads away from.
        negative_prompt_2: the same for the second text encoder.
        prompt_embeds: float [B, T, D], in place of ``prompt``.
        negative_prompt_embeds: float [B, T, D], in place of ``negative_prompt``.
        pooled_prompt_embeds: float [B, P], which SDXL needs beside ``prompt_embeds``.
        negative_pooled_prompt_embeds: float [B, P], which SDXL needs beside ``negative_prompt_embeds``.
        clip_skip: how many layers before the default one the prompt's embeddings are taken from; as in diffusers, it
            has no effect on the negative prompt.
        long_prompt: ``"truncate"`` drops what does not fit a window of 75 tokens, as diffusers does, and warns;
            ``"chunk"`` encodes as many windows as needed.
        weighting: whether brackets weight words (see :mod:`.bracket_weights`) or are text, as in diffusers.

    """

    prompt: Texts | None = None
    prompt_2: Texts | None = None
    negative_prompt: Texts | None = None
    negative_prompt_2: Texts | None = None
    prompt_embeds: NDArray[np.floating] | None = None
    negative_prompt_embeds: NDArray[np.floating] | None = None
    pooled_prompt_embeds: NDArray[np.floating] | None = None
    negative_pooled_prompt_embeds: NDArray[np.floating] | None = None
    clip_skip: int | None = None
    long_prompt: LongPrompt = "truncate"
    weighting: bool = True

    def __post_init__(self) -> None:
        _check_exclusive(self)
        for name in ("prompt", "prompt_2", "negative_prompt", "negative_prompt_2"):
            _check_texts(name, getattr(self, name))
        for name, axes in EMBEDDINGS.items():
            value = getattr(self, name)
            if value is not None and np.ndim(value) != axes:
                raise UsageError(f"{name} needs {axes} axes, {_SHAPES[axes]}, but has shape {list(np.shape(value))}")
            if value is not None and len(value) != self.batch:
                raise UsageError(f"{name} has {len(value)} rows for {self.batch} prompts")

    @property
    def batch(self) -> int:
        """How many prompts there are."""
        if self.prompt_embeds is not None:
            return int(self.prompt_embeds.shape[0])
        return 1 if isinstance(self.prompt, str) or self.prompt is None else len(self.prompt)

    def texts(self, name: str) -> list[str] | None:
        """Return the B texts of that name, or None if there are none.

        Raises:
            UsageError: it is a list of another number than B.

        """
        value: Texts | None = getattr(self, name)
        if value is None:
            return None
        if isinstance(value, str):
            return [value] * self.batch
        if len(value) != self.batch:
            raise UsageError(f"{name} has {len(value)} entries for {self.batch} prompts: give one, or one for each")
        return list(value)


_SHAPES = {3: "[prompts, tokens, width]", 2: "[prompts, width]"}
EMBEDDINGS = {  # name: number of axes
    "prompt_embeds": 3,
    "negative_prompt_embeds": 3,
    "pooled_prompt_embeds": 2,
    "negative_pooled_prompt_embeds": 2,
}


def _check_exclusive(request: PromptRequest) -> None:
    for sign in ("", "negative_"):
        embeds = f"{sign}prompt_embeds"
        for text in (f"{sign}prompt", f"{sign}prompt_2"):
            if getattr(request, text) is not None and getattr(request, embeds) is not None:
                raise UsageError(f"{text} and {embeds} were both given: give the text or its embeddings, not both")
        pooled = f"{sign}pooled_prompt_embeds"
        if getattr(request, pooled) is not None and getattr(request, embeds) is None:
            raise UsageError(f"{pooled} was given without {embeds}: they belong together")
    if request.prompt is None and request.prompt_embeds is None:
        raise UsageError("there is no prompt: give prompt or prompt_embeds")


def _check_texts(name: str, value: object) -> None:
    if value is None or isinstance(value, str):
        return
    if not isinstance(value, Sequence) or not all(isinstance(text, str) for text in value):
        raise UsageError(f"{name} is a text or a list of texts, not {type(value).__name__}")
    if not value:
        raise UsageError(f"{name} is an empty list: give at least one text")
