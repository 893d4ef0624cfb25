"""Opening a session of ONNX Runtime, for its engines on the CPU and on CUDA."""

from collections.abc import Mapping, Sequence
from typing import Any

from .bundle import Bundle
from .errors import EngineError
from .manifest import Graph

__all__ = ["open_session", "provider_missing"]


def provider_missing(provider: str, extra: str) -> str | None:
    """Return why the installed library has no execution provider of that name, or None."""
    try:
        import onnxruntime
    except ImportError:
        return f'onnxruntime is not installed; pip install "sdengine[{extra}]"'
    if provider not in onnxruntime.get_available_providers():
        return f'this build of onnxruntime has no {provider}; pip install "sdengine[{extra}]"'
    return None


def open_session(
    bundle: Bundle,
    component: str,
    graph: Graph,
    provider: str,
    options: Mapping[str, str] | None = None,
    *,
    threads: int | None = None,
    config: Sequence[tuple[str, str]] = (),
) -> Any:
    """Open a graph.

    Args:
        bundle: where it is.
        component: what it is, for messages.
        graph: which one.
        provider: the execution provider.
        options: of the provider.
        threads: for one operator on the CPU; None lets the library choose.
        config: entries of the session's configuration.

    Raises:
        EngineError: the library refuses it.
        BundleError: the graph was changed.

    """
    import onnxruntime

    file = bundle.checked_file(graph.file)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    if threads is not None:
        settings.intra_op_num_threads = threads
    for key, value in config:
        settings.add_session_config_entry(key, value)
    try:
        # Without its own fallback, which would go to the CPU and tell only the terminal.
        return onnxruntime.InferenceSession(
            str(file), settings, providers=[(provider, dict(options or {}))], enable_fallback=0
        )
    except Exception as error:  # onnxruntime raises a dozen types of its own
        raise EngineError(f"{component}: onnxruntime cannot open {graph.file}: {error}") from error
