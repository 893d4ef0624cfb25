"""Request -> image: lean, never imports torch, transformers, onnx or diffusers.

Its names are imported when they are first used: the command line handles signals before anything large is imported.
What generates is imported while a bundle's engines open, see :meth:`Pipeline.load`.
"""

TYPE_CHECKING = False  # typing is not imported for it
if TYPE_CHECKING:
    from .pipeline import Pipeline
    from .request.request import Request
    from .result import Result, Timings

__all__ = ["Pipeline", "Request", "Result", "Timings"]

_MODULES = {"Pipeline": "pipeline", "Request": "request.request", "Result": "result", "Timings": "result"}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("sdengine")
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
