"""Opens ONNX Runtime sessions, for its engines on the CPU and on CUDA."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..bundle.bundle import Bundle
from ..bundle.compiled_cache import CompiledCache
from ..bundle.graph_file import read_graph
from ..errors import EngineError
from ..install_hint import install_hint
from ..weights import changed_tensors

__all__ = ["open_session", "provider_missing"]

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


def provider_missing(provider: str, extra: str) -> str | None:
    """Return why the installed library has no execution provider of that name, or None."""
    try:
        import onnxruntime
    except ImportError:
        return f"onnxruntime is not installed; {install_hint(extra)}"
    if provider not in onnxruntime.get_available_providers():
        return f"this build of onnxruntime has no {provider}; {install_hint(extra)}"
    return None


def open_session(
    bundle: Bundle,
    component: str,
    graph: str,
    provider: str,
    options: Mapping[str, str] | None = None,
    *,
    threads: int | None = None,
    config: Sequence[tuple[str, str]] = (),
    static_dims: Mapping[str, int] | None = None,
    plan_reuse: bool = True,
    cache: CompiledCache | None = None,
    changed: bytes | None = None,
    optimise: bool = True,
) -> Any:
    """Open a graph in a session.

    Args:
        bundle: the bundle.
        component: name of the component.
        graph: the graph's file in the bundle.
        provider: the execution provider.
        options: of the provider.
        threads: for one operator on the CPU; None lets the library choose.
        config: entries of the session's configuration.
        static_dims: sizes of dimensions that are dynamic in the graph, by their names there.
        plan_reuse: whether to decide at opening which results share memory, which takes time with the square of the
            number of nodes; if not, the arena allocates memory at each run.
        cache: of the optimised graph, read and written; None uses none. It is not used if weights are changed.
        changed: a graph to open in place of the file's, with the weights beside that file; not together with ``cache``.
        optimise: whether the library may optimise the graph.

    Raises:
        EngineError: the library refuses it.
        BundleError: the graph or its weights were changed.

    """
    import onnxruntime

    file = bundle.checked_graph(component, graph)
    replaced = _replaced(bundle, component, file)
    if replaced:  # an optimised graph that was cached holds some of the weights
        cache = None

    def session(source: str | bytes, optimised: Path | None = None, *, optimise: bool = optimise) -> Any:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        if threads is not None:
            settings.intra_op_num_threads = threads
        for key, value in config:
            settings.add_session_config_entry(key, value)
        for name, size in (static_dims or {}).items():
            settings.add_free_dimension_override_by_name(name, size)
        settings.enable_mem_reuse = plan_reuse
        if optimised is not None:
            settings.optimized_model_filepath = str(optimised)
        if not optimise:
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if isinstance(source, bytes):
            # Weights that the optimisation did not change are still in the weights file, beside the graph.
            settings.add_session_config_entry(_WEIGHTS_FOLDER, str(file.parent))
        if replaced:
            settings.add_external_initializers(list(replaced), list(replaced.values()))
        # Without the library's own fallback to the CPU, which it reports only on the terminal.
        opened: Any = onnxruntime.InferenceSession(
            source, settings, providers=[(provider, dict(options or {}))], enable_fallback=0
        )
        opened.replaced_weights = replaced  # it computes with this memory, and holds no reference to it
        return opened

    try:
        return session(changed or str(file)) if cache is None else _cached_session(str(file), session, cache)
    except Exception as error:  # onnxruntime raises a dozen types of its own
        raise EngineError(f"{component}: onnxruntime cannot open {graph}: {error}") from error


def _replaced(bundle: Bundle, component: str, graph: Path) -> dict[str, Any]:
    """Return the weights of a graph that are used in place of those in the file, as the library's values."""
    changes = bundle.weights(bundle.component(component).network).changes
    if not changes:
        return {}
    import onnxruntime

    initialisers = read_graph(graph).initialisers
    make = onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type
    return {name: make(array, initialisers[name].type) for name, array in changed_tensors(changes, initialisers)}


def _cached_session(file: str, session: Callable[..., Any], cache: CompiledCache) -> Any:
    """Open the optimised graph from the cache, or optimise the graph and cache the result."""
    body = cache.read()
    if body is not None:
        try:
            return session(bytes(body), optimise=False)
        except Exception as error:  # onnxruntime raises a dozen types of its own
            cache.notes.append(f"what was cached was not used and is made again: {error}")
    if cache.file is None:
        return session(file)
    try:
        with tempfile.TemporaryDirectory(prefix=".optimised-", dir=cache.file.parent) as folder:
            optimised = Path(folder) / "optimised.onnx"
            opened = session(file, optimised)
            cache.write(optimised.read_bytes())
            return opened
    except Exception as error:  # the library or the system: the folder may be full
        opened = session(file)  # where the graph is wrong, this raises
        cache.notes.append(f"nothing was cached, so the next start compiles again: {error}")
        return opened
