"""Request -> image: lean, never imports torch, transformers, onnx or diffusers."""

from .pipeline import Pipeline
from .request import Request
from .result import Result, Timings

__all__ = ["Pipeline", "Request", "Result", "Timings"]
