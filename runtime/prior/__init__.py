"""What is denoised before an image: the embedding of an image, which a prior makes of text."""

from .embedding import Embedding, ImageEmbeds
from .prior import Prior

__all__ = ["Embedding", "ImageEmbeds", "Prior"]
