"""The embedding that conditions one image: a weighted sum of embeddings, of which a prior may still denoise some."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..denoise.sample import Sample

__all__ = ["Denoised", "Embedding", "ImageEmbeds", "Term"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """An embedding that a prior denoises.

    Attributes:
        sample: the prior's sample.
        decode: turns its latent [D, 1, 1] into the embedding [D].

    """

    sample: Sample
    decode: Callable[[F32], F32]


Term = F32 | Denoised
"""An embedding, float32 [D], or one that a prior denoises."""


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A weighted sum of embeddings.

    Attributes:
        terms: pairs of a weight and an embedding.

    """

    terms: tuple[tuple[float, Term], ...]

    @classmethod
    def of(cls, term: Term) -> "Embedding":
        """Return a sum of one term, with weight 1."""
        return cls(terms=((1.0, term),))

    @property
    def before(self) -> tuple[Sample, ...]:
        """The prior's samples that must be finished before :meth:`value`."""
        return tuple(term.sample for _, term in self.terms if isinstance(term, Denoised))

    def value(self) -> F32:
        """Return the sum, float32 [D]."""
        total: F32 | None = None
        for weight, term in self.terms:
            value = term.decode(term.sample.latent) if isinstance(term, Denoised) else term
            part = value if weight == 1.0 else np.float32(weight) * value
            total = part if total is None else total + part
        assert total is not None
        return total


@dataclass(frozen=True, kw_only=True)
class ImageEmbeds:
    """The embedding that one image is conditioned on, and with guidance the one of the negative row."""

    positive: Embedding
    negative: Embedding | None

    @property
    def before(self) -> tuple[Sample, ...]:
        """The prior's samples that must be finished before the embeddings can be computed."""
        return (*self.positive.before, *(() if self.negative is None else self.negative.before))
