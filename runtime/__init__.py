"""Request -> image: lean, never imports torch, transformers, onnx or diffusers.

What generates is imported while a bundle's engines open, see :meth:`Pipeline.load`.
"""

from .pipeline import Pipeline
from .request.request import Request
from .result import Result, Timings

__all__ = ["Pipeline", "Request", "Result", "Timings"]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("sdengine")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
