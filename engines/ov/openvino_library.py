"""OpenVINO's Python package without its converter of other formats, and the process's one ``Core``."""

import sys
import threading
from types import ModuleType
from typing import Any

__all__ = ["core", "library"]

_CONVERTER = "openvino.tools.ovc"
_CORE: Any = None
_LOCK = threading.RLock()


def library() -> ModuleType:
    """Import ``openvino``; where it is not yet imported, without its converter of other formats.

    The converter needs telemetry, an HTTP client and a command line parser, which take more time to import than all the
    rest. ``openvino`` works without it. ``openvino.convert_model`` still works: it imports the converter.

    Raises:
        ImportError: it is not installed.

    """
    with _LOCK:
        if "openvino" in sys.modules:
            return sys.modules["openvino"]
        sys.modules[_CONVERTER] = None  # type: ignore[assignment]  # marks a module as missing
        try:
            import openvino
        finally:
            del sys.modules[_CONVERTER]
        module: ModuleType = openvino
        module.__getattr__ = _converter  # type: ignore[method-assign]
        return module


def _converter(name: str) -> Any:
    if name == "convert_model":
        from openvino.tools.ovc import convert_model

        return convert_model
    raise AttributeError(f"module 'openvino' has no attribute {name!r}")


def core() -> Any:
    """Return the process's one ``openvino.Core``: making it loads the plugins."""
    global _CORE
    with _LOCK:
        if _CORE is None:
            _CORE = library().Core()
        return _CORE
