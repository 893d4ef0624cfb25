"""OpenVINO on x86 CPUs: the bundle's float32 graphs, computed in bfloat16 where the CPU multiplies it natively.

A bundle exported with ``--precision bf16`` holds bfloat16 graphs and weights. They cost the least memory: OpenVINO
makes float32 of every other weight, and keeps that beside what it computes with; bfloat16 it maps.

Compiled models of small networks are kept in the bundle, see :mod:`.kept`. Those of large ones hold a second copy of
the weights: importing a Stable Diffusion 1.5 denoiser of 3.5 GB takes as long as compiling it.
"""

import io
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .bundle import Bundle
from .engine import Array, check_buffers
from .errors import EngineError, EngineUnavailableError
from .kept import Kept
from .memory import HOST, Buffer, host_arrays
from .openvino_geglu import halve_gated_projections
from .openvino_split import split_sinusoids
from .openvino_upsample import convolve_before_doubling
from .resident import release_freed, release_mapped
from .spec import ComponentSpec, split_dim

__all__ = ["NAME", "OpenVinoEngine", "preferred", "unavailable", "version"]

NAME = "openvino"
_DEVICE = "CPU"
_TYPES = {"fp32": "f32", "bf16": "bf16"}
_PRECISIONS = {type_name: precision for precision, type_name in _TYPES.items()}

_CORE: Any = None
_MAKING_CORE = threading.Lock()


def _core() -> Any:
    """Return the process's one ``openvino.Core``: making it loads the plugins."""
    global _CORE
    with _MAKING_CORE:
        if _CORE is None:
            import openvino

            _CORE = openvino.Core()
        return _CORE


def unavailable() -> str | None:
    """Return why it cannot run here, or None."""
    try:
        devices = _core().available_devices
    except ImportError:
        return 'openvino is not installed; pip install "sdengine[openvino]"'
    return None if _DEVICE in devices else f"this build of openvino has no {_DEVICE} device"


def version() -> str:
    """Return the library's version."""
    from importlib.metadata import version as installed

    return installed("openvino")


def preferred(graphs: Collection[str]) -> str | None:
    """Return the precision to compute in where none is asked for, or None where no graph of the bundle will do.

    bfloat16 where the CPU has instructions for it (AMX or AVX512-BF16, which is what the capability means: OpenVINO
    does not list it where it would emulate), else float32.
    """
    native = "BF16" in _core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    if native and ("bf16" in graphs or "fp32" in graphs):
        return "bf16"
    return "fp32" if "fp32" in graphs else None


class OpenVinoEngine:
    """A component compiled by OpenVINO.

    Args:
        bundle: where the graph and its weights are.
        component: which one.
        precision: ``bf16`` or ``fp32``; the step's arithmetic outside the network stays float32. The float32 graph
            does for both, if there is none in bfloat16.
        threads: for one operator; None lets the library choose.

    Raises:
        EngineUnavailableError: the library is missing, or the CPU cannot compute in that precision.
        EngineError: it refuses the graph.

    """

    name = NAME
    memory = HOST

    def __init__(self, bundle: Bundle, component: str, *, precision: str = "fp32", threads: int | None = None) -> None:
        reason = unavailable()
        if reason is not None:
            raise EngineUnavailableError(reason)
        graphs = bundle.component(component).graphs
        graph = bundle.graph(component, precision if precision in graphs else "fp32")
        self.notes: list[str] = []
        self.spec = graph.spec
        self._component = component
        bundle.checked_file(graph.file)
        options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _TYPES[precision]}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads
        settings = {"version": version(), "axes": str(sorted(graph.spec.axes.items()))}
        settings |= {name: str(value) for name, value in options.items()}
        kept = Kept(bundle, component, graph.file, engine=NAME, settings=settings)
        try:
            self._models: list[Any] = _opened(str(bundle.file(graph.file)), graph.spec, options, kept)
        except Exception as error:  # openvino raises bare RuntimeError and its subclasses
            raise EngineError(f"{component}: openvino cannot open {graph.file}: {error}") from error
        release_freed()
        self._weights = bundle.file(bundle.manifest.networks[bundle.component(component).network].weights)
        self.notes += kept.notes
        main = self._models[-1]
        self.device = str(main.get_property("EXECUTION_DEVICES")[0])
        self.precision = _PRECISIONS.get(_runs_in(main), "unknown")
        if self.precision != precision:
            self.close()
            raise EngineUnavailableError(f"openvino computes {component} in {self.precision} here, not in {precision}")

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind buffers; see :class:`~sdengine.engines.engine.Engine`."""
        if not self._models:
            raise EngineError(f"{self._component}: this engine has been closed")
        axes = check_buffers(self.spec, inputs, outputs)
        try:
            buffers = host_arrays({**inputs, **outputs})
            return _bound(f"{self._component} at {axes}", self._models, buffers, self._weights)
        except Exception as error:
            raise EngineError(f"{self._component}: openvino refuses the buffers at {axes}: {error}") from error

    def close(self) -> None:
        """Release the compiled model."""
        self._models = []


class _Call:
    """Requests to run one after the other, and the buffers they point into: a tensor keeps no array alive."""

    def __init__(self, what: str, requests: list[Any], buffers: Mapping[str, Array], weights: Path) -> None:
        self._what = what
        self._weights: Path | None = weights
        self._requests = requests
        self._buffers = buffers

    def __call__(self) -> None:
        try:
            for request in self._requests:
                request.infer(share_outputs=True)  # the results are in our buffers; without this they are copied too
        except Exception as error:
            raise EngineError(f"openvino failed to run {self._what}: {error}") from error
        if self._weights is not None:  # the first run packs the weights, and needs the file no longer
            release_mapped(self._weights)
            self._weights = None


def _bound(what: str, models: list[Any], buffers: dict[str, Array], weights: Path) -> _Call:
    """Bind a request of each model to the buffers, and to what the model before it makes."""
    import openvino

    requests = []
    for model in models:
        request = model.create_infer_request()
        requests.append(request)
        ports = [port.get_any_name() for port in (*model.inputs, *model.outputs)]
        passed_on = [name for name in ports if name not in buffers]
        for name in ports:
            if name in buffers:
                request.set_tensor(name, openvino.Tensor(buffers[name], shared_memory=True))
        if passed_on:
            request.infer()  # tells how large they are
        for name in passed_on:
            buffers[name] = np.empty_like(request.get_tensor(name).data)
            request.set_tensor(name, openvino.Tensor(buffers[name], shared_memory=True))
    return _Call(what, requests, buffers, weights)


def _opened(file: str, spec: ComponentSpec, options: Mapping[str, Any], kept: Kept) -> list[Any]:
    """Import what was compiled before, or compile."""
    body = kept.read()
    if body is not None:
        parts: list[bytes] = msgspec.msgpack.decode(body, type=list[bytes])
        try:
            return [
                _core().import_model(io.BytesIO(part), _DEVICE, dict(given))
                for part, given in zip(parts, _options_of_parts(len(parts), options), strict=True)
            ]
        except Exception as error:  # openvino raises bare RuntimeError and its subclasses
            kept.notes.append(f"what was kept in the bundle was not used: {error}")
    models = _compiled(file, spec, options)
    if kept.wanted() and _runs_in(models[-1]) == options["INFERENCE_PRECISION_HINT"]:
        kept.write(msgspec.msgpack.encode([model.export_model().getvalue() for model in models]))
    return models


def _runs_in(model: Any) -> str:
    return str(model.get_property("INFERENCE_PRECISION_HINT").to_string())


def _options_of_parts(count: int, options: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The last part is the network; what is before it is small, and exact."""
    exact = {**options, "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return [exact] * (count - 1) + [options]


def _compiled(file: str, spec: ComponentSpec, options: Mapping[str, Any]) -> list[Any]:
    """Compile a graph; in bfloat16 as two models where it has sinusoids, see :func:`split_sinusoids`."""
    core = _core()
    model = core.read_model(file)
    _fix_shapes(model, spec)
    halve_gated_projections(model)
    convolve_before_doubling(model)
    split = split_sinusoids(model) if options["INFERENCE_PRECISION_HINT"] == "bf16" else None
    parts = (model,) if split is None else split
    given = _options_of_parts(len(parts), options)
    return [core.compile_model(part, _DEVICE, dict(o)) for part, o in zip(parts, given, strict=True)]


def _fix_shapes(model: Any, spec: ComponentSpec) -> None:
    """Tell the model the lengths of axes that have but one: with known shapes OpenVINO fuses more."""
    import openvino

    if all(allowed.min < allowed.max for allowed in spec.axes.values()):
        return

    def length(dim: int | str) -> int:
        if isinstance(dim, int):
            return dim
        factor, axis, divisor = split_dim(dim)
        allowed = spec.axes[axis]
        return -(-factor * allowed.min // divisor) if allowed.min == allowed.max else -1

    names = {port.get_any_name() for port in model.inputs}
    shapes = {t.name: [length(dim) for dim in t.shape] for t in spec.inputs if t.name in names}
    model.reshape({name: openvino.PartialShape(shape) for name, shape in shapes.items()})
