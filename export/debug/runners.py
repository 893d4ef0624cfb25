"""The engines as Polygraphy's runners, with chosen values of the graph as outputs."""

import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from polygraphy.backend.base import BaseRunner
from polygraphy.backend.onnxrt import OnnxrtRunner
from polygraphy.common import TensorMetadata

from ...engines.cuda.gpu import device_number
from ...engines.engine import Array, Engine, run
from ...engines.errors import BundleError, EngineError
from ...engines.ort.onnxruntime_cpu import static_dims
from ...engines.ort.onnxruntime_session import open_session
from ...engines.spec import ComponentSpec
from ...engines.trt import LIBRARIES
from .graphs import in_float32, with_outputs
from .subject import Subject
from .torch_runner import TorchRunner

__all__ = ["AGAINST", "engine_runner", "marked_runner", "ran_by", "reference_runner"]


def _onnxruntime_reference(subject: Subject, names: Sequence[str]) -> BaseRunner:
    changed = with_outputs(in_float32(subject.model), names).SerializeToString()
    return OnnxrtRunner(lambda: _session(subject, subject.graph.file, changed, optimise=False), name="onnxruntime")


def _torch_reference(subject: Subject, names: Sequence[str]) -> BaseRunner:
    return TorchRunner(subject.traced, subject.spec, names, exact=True)


AGAINST: dict[str, Callable[[Subject, Sequence[str]], BaseRunner]] = {
    "torch": _torch_reference,
    "onnxruntime": _onnxruntime_reference,
}
"""What computes the reference, in float32: torch as the component was traced, or ONNX Runtime on the plain graph, node
by node without optimisation."""


def reference_runner(subject: Subject, against: str, names: Sequence[str]) -> BaseRunner:
    """Return a runner that computes the values called ``names`` in float32."""
    return AGAINST[against](subject, names)


def engine_runner(subject: Subject, engine: Engine) -> BaseRunner:
    """Return an open engine as a runner: its outputs only."""
    return _EngineRunner(subject.spec, engine)


def marked_runner(subject: Subject, names: Sequence[str]) -> BaseRunner:
    """Return the subject's engine, with those of the values called ``names`` as outputs that it computes."""
    if subject.engine in LIBRARIES:
        return _plan_runner(subject, names)
    if subject.engine == "openvino":
        return _OpenVinoRunner(subject, names)
    if subject.engine == "torch":
        return TorchRunner(subject.traced, subject.spec, names, exact=False)
    return _onnxruntime_runner(subject, names)


def ran_by(subject: Subject) -> str:
    """Return what the engine runs, where that is not the plain graph itself."""
    if subject.engine == "onnxruntime":
        what = "" if subject.runs == subject.graph.file else f"{subject.runs}, in ONNX Runtime's own operators; "
        return f"{what}optimised by onnxruntime"
    if subject.engine == "openvino":
        return "compiled by openvino for these sizes" + ("" if subject.plain else ", after sdengine's rewrites")
    if subject.engine in LIBRARIES:
        return f"a plan that {subject.engine} built from it for this, with the values as outputs"
    return "the traced modules" if subject.engine == "torch" else f"optimised by {subject.engine}"


def _onnxruntime_runner(subject: Subject, names: Sequence[str]) -> BaseRunner:
    model = subject.load(subject.runs)
    made = {name for node in model.graph.node for name in node.output}
    changed = with_outputs(model, [name for name in names if name in made]).SerializeToString()
    return OnnxrtRunner(lambda: _session(subject, subject.runs, changed), name=subject.engine)


def _session(subject: Subject, file: str, changed: bytes, *, optimise: bool = True) -> Any:
    on_gpu = subject.engine == "onnxruntime-cuda" and optimise
    provider = "CUDAExecutionProvider" if on_gpu else "CPUExecutionProvider"
    options = {"device_id": str(device_number(subject.device)), "use_tf32": "0"} if on_gpu else None
    return open_session(
        subject.bundle,
        subject.component,
        file,
        provider,
        options,
        static_dims={} if on_gpu else static_dims(subject.spec),
        plan_reuse=False,
        changed=changed,
        optimise=optimise,
    )


def _metadata(spec: ComponentSpec) -> Any:
    metadata = TensorMetadata()
    for tensor in spec.inputs:
        metadata.add(tensor.name, np.dtype(tensor.dtype), [d if isinstance(d, int) else None for d in tensor.shape])
    return metadata


class _EngineRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy has no types
    def __init__(self, spec: ComponentSpec, engine: Engine) -> None:
        super().__init__(name=engine.name)
        self._spec, self._engine = spec, engine

    def get_input_metadata_impl(self) -> Any:
        return _metadata(self._spec)

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> Any:
        self.inference_time = 0.0  # nothing is timed here
        return OrderedDict(run(self._engine, {name: np.ascontiguousarray(a) for name, a in feed_dict.items()}))


class _OpenVinoRunner(BaseRunner):  # type: ignore[misc]
    def __init__(self, subject: Subject, names: Sequence[str]) -> None:
        super().__init__(name=subject.engine)
        self._subject, self._names = subject, names

    def get_input_metadata_impl(self) -> Any:
        return _metadata(self._subject.spec)

    def activate_impl(self) -> None:
        from ...engines.ov.compiled_variants import compiled
        from ...engines.ov.openvino_cpu import compiler_options

        subject = self._subject
        file = subject.bundle.checked_file(subject.runs)
        options = compiler_options(subject.precision)
        try:
            self._variant = compiled(
                str(file), subject.spec, subject.axes, options, extra_outputs=self._names, rewritten=not subject.plain
            )
        except RuntimeError as error:
            raise EngineError(f"{subject.component}: openvino cannot open {subject.runs}: {error}") from error

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> Any:
        from ...engines.ov.extra_outputs import PREFIX
        from ...engines.ov.openvino_library import library

        tensors = {name: library().Tensor(np.ascontiguousarray(array)) for name, array in feed_dict.items()}
        made: dict[str, Array] = {}
        for model in self._variant.models:
            request = model.create_infer_request()
            for port in model.inputs:
                request.set_tensor(port, tensors[port.get_any_name()])
            request.infer()
            for i, port in enumerate(model.outputs):
                tensor = request.get_output_tensor(i)
                for name in port.get_names():
                    tensors.setdefault(name, tensor)
                    made.setdefault(name.removeprefix(PREFIX), tensor.data.copy())
        self.inference_time = 0.0
        return OrderedDict((name, made[name]) for name in self._names if name in made)

    def deactivate_impl(self) -> None:
        del self._variant


def _plan_runner(subject: Subject, names: Sequence[str]) -> BaseRunner:
    from polygraphy import config

    config.USE_TENSORRT_RTX = subject.engine == "tensorrt-rtx"  # read as the next line imports the library
    from polygraphy.backend.trt import TrtRunner

    class PlanRunner(TrtRunner):  # type: ignore[misc]
        def infer_impl(self, *arguments: Any, **options: Any) -> Any:
            from ...engines.trt.parsed_network import MARKED

            made = super().infer_impl(*arguments, **options)
            return OrderedDict((name.removeprefix(MARKED), array) for name, array in made.items())

    return PlanRunner(lambda: _plan(subject, names), name=subject.engine, optimization_profile=0)


def _plan(subject: Subject, names: Sequence[str]) -> Any:
    """Build a plan that shows the values, compare its hash, and open it with our own runtime: no host code runs."""
    from ...engines.cuda.gpu import gpu_here
    from ...engines.spec import AxisRange
    from ...engines.trt.build_options import BuildOptions
    from ...engines.trt.compile import compile_plan
    from ...engines.trt.messages import Messages, logger_for
    from ...engines.trt.plan_engine import deserialised
    from ...engines.trt.plan_record import PlanSource

    library = LIBRARIES[subject.engine]
    gpu = gpu_here(device_number(subject.device))
    generation = "" if gpu is None else gpu.generation
    source = PlanSource(
        engine=subject.engine,
        version=str(library.load().__version__),
        target=generation,
        component=subject.component,
        precision=subject.precision,
        graph="",
        weights="",
        profiles=({axis: AxisRange(n, n, n) for axis, n in subject.axes.items()},),
        options=BuildOptions(),
    )
    with tempfile.TemporaryDirectory(prefix="sdengine-debug-") as folder:
        file = Path(folder) / "marked.plan"
        targets = (generation,) if library.ahead_of_time and generation else ()
        graph = subject.bundle.checked_file(subject.graph.file)
        built = compile_plan(library, graph, subject.spec, source, file, targets=targets, extra_outputs=names)
        with file.open("rb") as plan:
            if hashlib.file_digest(plan, "sha256").hexdigest() != built.sha256:
                raise BundleError(f"{file} is not the plan that was built (its SHA-256 differs)")
        messages = Messages()
        runtime = library.load().Runtime(logger_for(library.load(), messages))
        engine = deserialised(runtime, file)
    if engine is None:
        raise EngineError(f"{subject.component}: {subject.engine} cannot open its plan: {'; '.join(messages.errors)}")
    return engine
