"""Denoising: samples, batches of samples that share launches, and the loop."""

from .batch import Batch
from .denoising import Denoising, Step
from .sample import Sample

__all__ = ["Batch", "Denoising", "Sample", "Step"]
