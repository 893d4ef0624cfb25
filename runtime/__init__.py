"""Request -> image: lean, never imports torch, transformers, onnx or diffusers.

What draws is imported while a bundle's engines open, see :meth:`Pipeline.load`.
"""

from typing import TYPE_CHECKING, Any

from .pipeline import Pipeline
from .result import Result, Timings

if TYPE_CHECKING:
    from .request.request import Request

__all__ = ["Pipeline", "Request", "Result", "Timings"]


def __getattr__(name: str) -> Any:
    if name == "Request":
        from .request.request import Request

        return Request
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
