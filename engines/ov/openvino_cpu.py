"""OpenVINO on x86 CPUs: the bundle's float32 graphs, computed in bfloat16 where the CPU multiplies it natively.

A bundle exported with ``--precision bf16`` holds bfloat16 graphs and weights. They need the least memory: weights of
other types are converted to float32, and OpenVINO holds that copy beside the one it computes with; bfloat16 it maps.

Compiled models of small networks are cached, see :mod:`..bundle.compiled_cache`. Those of large ones hold a second copy
of the weights: importing a Stable Diffusion 1.5 denoiser of 3.5 GB takes as long as compiling it.
"""

import functools
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.bundle import Bundle
from ..engine import Array, check_buffers
from ..errors import EngineError, EngineUnavailableError, SdengineError
from ..install_hint import install_hint
from ..memory import HOST, Buffer, host_arrays
from ..resident import release_mapped
from .compiled_variants import DEVICE, CompiledVariant, CompiledVariants, runs_in
from .openvino_library import core, library

__all__ = ["NAME", "OpenVinoEngine", "compiler_options", "preferred", "unavailable", "version"]

NAME = "openvino"
_TYPES = {"fp32": "f32", "bf16": "bf16"}
_PRECISIONS = {type_name: precision for precision, type_name in _TYPES.items()}


def unavailable() -> str | None:
    """Return why it cannot run on this machine, or None."""
    try:
        core().get_property(DEVICE, "FULL_DEVICE_NAME")  # listing all devices would load the plugins of all
    except ImportError:
        return f"openvino is not installed; {install_hint('openvino')}"
    except RuntimeError as error:
        return f"this build of openvino has no {DEVICE} device: {error}"
    return None


@functools.cache
def version() -> str:
    """Return the library's version."""
    from importlib.metadata import version as installed

    return installed("openvino")


def preferred(graphs: Collection[str], device: str | None = None) -> str | None:
    """Return the default precision, or None if the bundle has no graph for it.

    It is bfloat16 if the CPU has instructions for it (AMX or AVX512-BF16: OpenVINO lists the capability only if it need
    not emulate it), else float32.
    """
    native = "BF16" in core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    if native and ("bf16" in graphs or "fp32" in graphs):
        return "bf16"
    return "fp32" if "fp32" in graphs else None


def compiler_options(precision: str, threads: int | None = None) -> dict[str, Any]:
    """Return the compiler options of OpenVINO for an engine in ``bf16`` or ``fp32``."""
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _TYPES[precision]}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    return options


class OpenVinoEngine:
    """A component compiled by OpenVINO.

    Args:
        bundle: the bundle.
        component: name of the component.
        precision: ``bf16`` or ``fp32``; the step's arithmetic outside the network stays float32. If the bundle has no
            bfloat16 graph, the float32 graph is used for both.
        threads: for one operator; None lets the library choose.

    Raises:
        EngineUnavailableError: the CPU cannot compute in that precision.
        EngineError: it refuses the graph.

    """

    name = NAME
    memory = HOST

    def __init__(self, bundle: Bundle, component: str, *, precision: str = "fp32", threads: int | None = None) -> None:
        graphs = bundle.component(component).graphs
        graph = bundle.graph(component, precision if precision in graphs else "fp32")
        self.notes: list[str] = []
        self.spec = graph.spec
        self._component = component
        options = compiler_options(precision, threads)
        self._file = graph.file
        self._choosing = threading.Lock()
        self._variants: CompiledVariants | None = CompiledVariants(
            bundle, component, graph, engine=NAME, settings={"version": version()}, options=options
        )
        self._mapped = self._variants.mapped
        main = self._variant(None).models[-1]
        self.device = str(main.get_property("EXECUTION_DEVICES")[0])
        self.precision = _PRECISIONS.get(runs_in(main), "unknown")
        if self.precision != precision:
            self.close()
            raise EngineUnavailableError(f"openvino computes {component} in {self.precision} here, not in {precision}")

    def prepare(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind buffers; see :class:`~sdengine.engines.engine.Engine`."""
        axes = check_buffers(self.spec, inputs, outputs)
        variant = self._variant(axes)
        try:
            buffers = host_arrays({**inputs, **outputs})
            return _bind(f"{self._component} at {axes}", variant, buffers, self._mapped)
        except Exception as error:
            raise EngineError(f"{self._component}: openvino refuses the buffers at {axes}: {error}") from error

    def _variant(self, axes: Mapping[str, int] | None) -> CompiledVariant:
        """Return the variant for some sizes; for None, the one to open first."""
        with self._choosing:
            variants = self._variants
            if variants is None:
                raise EngineError(f"{self._component}: this engine has been closed")
            try:
                variant = variants.first() if axes is None else variants.at(axes)
            except SdengineError:
                raise
            except Exception as error:  # openvino raises bare RuntimeError and its subclasses
                raise EngineError(f"{self._component}: openvino cannot open {self._file}: {error}") from error
            self.notes = variants.notes
            return variant

    def close(self) -> None:
        """Release the compiled models."""
        self._variants = None


class _Call:
    """Runs requests one after the other; it refers to their arrays, which OpenVINO's tensors do not keep alive."""

    def __init__(
        self,
        what: str,
        variant: CompiledVariant,
        requests: list[Any],
        buffers: Mapping[str, Array],
        mapped: Path | None,
    ) -> None:
        self._what = what
        self._mapped = mapped
        self._variant = variant
        self._requests = requests
        self._buffers = buffers

    def __call__(self) -> None:
        try:
            for request in self._requests:
                request.infer(
                    share_outputs=True
                )  # the results are in the bound buffers already; else they are copied too
        except Exception as error:
            raise EngineError(f"openvino failed to run {self._what}: {error}") from error
        if self._mapped is not None:  # the first run has packed the weights: the file's pages are not needed any more
            release_mapped(self._mapped)
            self._mapped = None


def _bind(what: str, variant: CompiledVariant, buffers: dict[str, Array], mapped: Path | None) -> _Call:
    """Bind a request of each model to the buffers, and to the outputs of the model before it."""
    tensor = library().Tensor
    requests = []
    for model in variant.models:
        request = model.create_infer_request()
        requests.append(request)
        ports = [port.get_any_name() for port in (*model.inputs, *model.outputs)]
        passed_on = [name for name in ports if name not in buffers]
        for name in ports:
            if name in buffers:
                request.set_tensor(name, tensor(buffers[name], shared_memory=True))
        if passed_on:
            request.infer()  # after a run their shapes are known
        for name in passed_on:
            buffers[name] = np.empty_like(request.get_tensor(name).data)
            request.set_tensor(name, tensor(buffers[name], shared_memory=True))
    return _Call(what, variant, requests, buffers, mapped)
