"""Kandinsky's prior: makes the embedding of an image from text, before the image itself is denoised."""

from .embedding import Embedding, ImageEmbeds
from .prior import Prior

__all__ = ["Embedding", "ImageEmbeds", "Prior"]
