"""The embedding that conditions one image: a sum of what is known and of what a prior is still to denoise."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..denoise.sample import Sample

__all__ = ["Denoised", "Embedding", "ImageEmbeds", "Term"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """What a sample of a prior comes to.

    Attributes:
        sample: the sample.
        decode: makes the embedding [D] of its latent [D, 1, 1].

    """

    sample: Sample
    decode: Callable[[F32], F32]


Term = F32 | Denoised
"""An embedding [D], or one that is to be denoised."""


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A sum of terms, each with its weight."""

    terms: tuple[tuple[float, Term], ...]

    @classmethod
    def of(cls, term: Term) -> "Embedding":
        """Return the embedding that is this term alone."""
        return cls(terms=((1.0, term),))

    @property
    def before(self) -> tuple[Sample, ...]:
        """The samples that it waits for."""
        return tuple(term.sample for _, term in self.terms if isinstance(term, Denoised))

    def value(self) -> F32:
        """Return it, float32 [D]; the samples it waits for must be finished."""
        total: F32 | None = None
        for weight, term in self.terms:
            value = term.decode(term.sample.latent) if isinstance(term, Denoised) else term
            part = value if weight == 1.0 else np.float32(weight) * value
            total = part if total is None else total + part
        assert total is not None
        return total


@dataclass(frozen=True, kw_only=True)
class ImageEmbeds:
    """What one image is conditioned on, and what guidance leads it away from, where there is some."""

    positive: Embedding
    negative: Embedding | None

    @property
    def before(self) -> tuple[Sample, ...]:
        """The samples that it waits for."""
        return (*self.positive.before, *(() if self.negative is None else self.negative.before))
