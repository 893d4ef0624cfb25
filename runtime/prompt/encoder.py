"""A text encoder: its tokenizer, and a function that runs its network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .tokenizer import Tokenizer

__all__ = ["Hidden", "TextEncoder", "TextEncoderCall", "Window"]

Hidden = NDArray[np.float32]


class TextEncoderCall(Protocol):
    """Runs the network of a text encoder."""

    def __call__(
        self,
        input_ids: NDArray[np.int64],
        attention_mask: NDArray[np.int64],
        layer: NDArray[np.int64],
        extra_embeddings: NDArray[np.float32],
        /,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Encode B windows of T tokens.

        Args:
            input_ids: [B, T]; an id of V + i means row i of ``extra_embeddings``.
            attention_mask: [B, T]; 0 hides a token from the others. All ones unless words are weighted below 1.
            layer: [1], which hidden state to return: 0 is the embeddings' output, L that of the last layer.
            extra_embeddings: [E, D], E at least 1.

        Returns:
            hidden [B, T, D] and pooled [B, P].

        """


@dataclass(frozen=True)
class Window:
    """One window of tokens: [T] ids, and [T] flags of the tokens that the others may see (None: all)."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64] | None = None

    @property
    def key(self) -> tuple[bytes, bytes | None]:
        """Equal for equal windows."""
        return self.ids.tobytes(), None if self.mask is None else self.mask.tobytes()


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A text encoder of a pipeline.

    Attributes:
        name: its component's name, for messages.
        tokenizer: turns text into token ids.
        run: runs the network.
        layers: L, its number of layers.
        width: D, the width of its hidden states.
        vocab_size: V, the rows of its embedding table.
        extra_embeddings: f32 [E, D], embeddings of the tokenizer's placeholders (words of textual inversions), if any.
        pooled_width: P, the width of its pooled embeddings.
        max_batch: the most windows of a call; None is any number.

    """

    name: str
    tokenizer: Tokenizer
    run: TextEncoderCall
    layers: int
    width: int
    vocab_size: int
    pooled_width: int | None = None
    extra_embeddings: Hidden | None = None
    max_batch: int | None = None

    def with_placeholders(self, tokens: Sequence[str], vectors: Hidden) -> "TextEncoder":
        """Return the encoder with these words added, each standing for one row of ``vectors`` [E, D]."""
        rows = np.asarray(vectors, np.float32)
        if self.extra_embeddings is not None:
            rows = np.concatenate([self.extra_embeddings, rows])
        tokenizer = self.tokenizer.with_placeholders([*self.tokenizer.placeholders, *tokens], self.vocab_size)
        return replace(self, tokenizer=tokenizer, extra_embeddings=rows)

    def encode(self, windows: Sequence[Window], layer: int) -> list[tuple[Hidden, Hidden]]:
        """Encode windows, equal ones once: hidden [T, D] and pooled [P] for each."""
        unique: dict[object, int] = {}
        rows = [unique.setdefault(window.key, len(unique)) for window in windows]
        first = [windows[rows.index(row)] for row in range(len(unique))]
        ids = np.stack([window.ids for window in first])
        masks = np.stack([np.ones_like(window.ids) if window.mask is None else window.mask for window in first])
        step = self.max_batch or len(first)
        extra = np.zeros((1, self.width), np.float32) if self.extra_embeddings is None else self.extra_embeddings
        results: list[tuple[Hidden, Hidden]] = []
        for start in range(0, len(first), step):
            part = slice(start, start + step)
            hidden, pooled = self.run(ids[part], masks[part], np.array([layer], np.int64), extra)
            results += [(np.array(h, np.float32), np.array(p, np.float32)) for h, p in zip(hidden, pooled, strict=True)]
        return [results[row] for row in rows]
