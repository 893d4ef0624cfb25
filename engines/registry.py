"""The kinds of engines, and the choice of one for a component.

It is the requested one, or the first that the bundle has graphs or plans for and this machine can run. Falling back is
never silent: every engine that was skipped is reported with its reason.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, get_args

from .bundle.bundle import PRECISIONS, Bundle
from .engine import Engine
from .errors import (
    CheckpointError,
    DamagedBundleError,
    EngineError,
    EngineUnavailableError,
    LoraError,
    SdengineError,
    UsageError,
    nearest,
)
from .opening_options import OpeningOptions

__all__ = [
    "ENGINES",
    "EngineKind",
    "Fallback",
    "FallbackPolicy",
    "Opened",
    "check_choice",
    "default_precision",
    "exported_first",
    "open_engine",
]

FallbackPolicy = Literal["allow", "error"]


@dataclass(frozen=True, kw_only=True)
class EngineKind:
    """A kind of engine: adding one adds its module and a line in :data:`ENGINES`.

    Attributes:
        where: its module, which has ``NAME``, ``unavailable()`` and ``version()``, and ``preferred()`` if the default
            precision depends on the machine or the device. It is imported only when it is used: most programs run one
            engine.
        opens: name of the function or class in that module that opens a component.
        precisions: those that it runs, preferred first.
        options: the names of :class:`.OpeningOptions` that it takes.
        devices: kinds of devices that it can run on.
        builds_plans: whether it runs plans that are built ahead of time, see :mod:`sdengine.engines.trt`.
        reference: whether the others are verified against it.

    """

    where: str
    opens: str
    precisions: tuple[str, ...]
    options: tuple[str, ...]
    devices: tuple[str, ...]
    builds_plans: bool = False
    reference: bool = False

    @property
    def module(self) -> ModuleType:
        """The module."""
        return import_module(self.where, __package__)

    def open(self, bundle: Bundle, component: str, **options: Any) -> Engine:
        """Open a component."""
        engine: Engine = getattr(self.module, self.opens)(bundle, component, **options)
        return engine

    def choose(self, graphs: Collection[str], device: str | None) -> str | None:
        """Return the default precision; None where the component has no graph for this engine."""
        preferred: Callable[..., str | None] | None = getattr(self.module, "preferred", None)
        if preferred is not None:
            return preferred(graphs, device)
        return next((p for p in self.precisions if p in graphs), None)


_PLAN: Any = {
    "opens": "open_plan",
    "precisions": ("fp16", "bf16", "fp32"),
    "options": ("device", "cuda_graph", "weight_streaming_budget"),
    "devices": ("cuda",),
    "builds_plans": True,
}
_CPU: Any = {"options": ("threads",), "devices": ("cpu",)}

ENGINES: dict[str, EngineKind] = {
    "tensorrt": EngineKind(where=".trt.run_tensorrt", **_PLAN),
    "tensorrt-rtx": EngineKind(where=".trt.run_tensorrt_rtx", **_PLAN),
    "onnxruntime-cuda": EngineKind(
        where=".ort.onnxruntime_cuda",
        opens="OnnxRuntimeCudaEngine",
        precisions=("fp16", "fp32"),
        options=("device", "memory_limit"),
        devices=("cuda",),
    ),
    "openvino": EngineKind(where=".ov.openvino_cpu", opens="OpenVinoEngine", precisions=("fp32", "bf16"), **_CPU),
    "onnxruntime": EngineKind(
        where=".ort.onnxruntime_cpu", opens="OnnxRuntimeEngine", precisions=("fp32", "fp16"), **_CPU
    ),
    "torch": EngineKind(
        where=".eager",
        opens="open_torch",
        precisions=("fp32", "bf16", "fp16"),
        options=("threads", "device", "cuda_graph", "compile"),
        devices=("cpu", "cuda"),
        reference=True,
    ),
}
"""By name, in the order in which ``auto`` tries them before it has timed any; see :mod:`.fastest`."""


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """An engine that was skipped, and why."""

    component: str
    requested: str
    skipped: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open engine, the engines that were skipped before it, and the options that were set and that it lacks."""

    engine: Engine
    fallbacks: tuple[Fallback, ...]
    unused: tuple[str, ...] = ()


def check_choice(engine: str, precision: str | None, fallback: str | None) -> None:
    """Check the names of an engine, a precision and a policy.

    Raises:
        UsageError: there is none of that name.

    """
    if engine != "auto" and engine not in ENGINES:
        names = ", ".join(["auto", *ENGINES])
        raise UsageError(f"unknown engine {engine!r}; there are {names}{nearest(engine, ENGINES)}")
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; there are {', '.join(PRECISIONS)}")
    if fallback is not None and fallback not in get_args(FallbackPolicy):
        raise UsageError(f"fallback={fallback!r} is neither allow nor error")


def open_engine(
    bundle: Bundle,
    component: str,
    *,
    engine: str = "auto",
    precision: str | None = None,
    fallback: FallbackPolicy | None = None,
    options: OpeningOptions | None = None,
    order: Sequence[str] | None = None,
) -> Opened:
    """Open a component.

    Args:
        bundle: the bundle.
        component: which component.
        engine: a name of :data:`ENGINES`, or ``auto``.
        precision: ``fp32``, ``bf16`` or ``fp16``; None is :func:`default_precision`.
        fallback: ``error`` refuses where the named engine cannot run, ``allow`` tries the others; None means
            ``allow`` for ``auto`` and ``error`` for a named engine.
        options: see :class:`.OpeningOptions`. An engine that was not named may lack one; the result says so.
        order: the order in which engines that were not named are tried, see :func:`.fastest.auto_order`; None is
            :func:`exported_first`.

    Raises:
        DamagedBundleError: a file that the engine reads is not what was exported; no other engine is tried.
        CheckpointError: a LoRA's file cannot be read.
        LoraError: a weight becomes too large with a LoRA.
        UsageError: an unknown engine, or an option that the named engine does not have.
        EngineError: no engine that is allowed can run the component; the reasons are listed.

    """
    check_choice(engine, precision, fallback)
    set_options = (options or OpeningOptions()).set_options
    policy = fallback or ("allow" if engine == "auto" else "error")
    skipped: list[Fallback] = []
    for name in _candidates(engine, policy, order or exported_first(bundle)):
        try:
            accepted = _accepted(name, set_options, named=name == engine)
            opened = _open(bundle, component, name, precision, accepted, named=name == engine)
        except (DamagedBundleError, CheckpointError, LoraError):
            raise  # no other engine is tried: it would run what was not exported, or read the same LoRA
        except SdengineError as error:
            if policy == "error":
                raise
            skipped.append(Fallback(component=component, requested=engine, skipped=name, reason=str(error)))
        else:
            unused = tuple(option for option in set_options if option not in (*ENGINES[name].options, "device"))
            return Opened(engine=opened, fallbacks=tuple(skipped), unused=unused)
    reasons = "; ".join(f"{f.skipped}: {f.reason}" for f in skipped)
    raise EngineError(f"no engine can run {component}: {reasons}")


def _candidates(engine: str, policy: str, order: Sequence[str]) -> Iterator[str]:
    """Yield the engines to try: the named one, then the others."""
    if engine != "auto":
        yield engine
    if policy == "allow":
        yield from (name for name in order if name != engine)


def exported_first(bundle: Bundle) -> list[str]:
    """Return the names of all engines, beginning with those that the bundle was exported for and verified with.

    The others can run its graphs too.
    """
    exported = bundle.manifest.engines
    return sorted(ENGINES, key=lambda name: name not in exported)


def _accepted(name: str, options: dict[str, Any], *, named: bool) -> dict[str, Any]:
    """Return the options that an engine has.

    Raises:
        UsageError: it cannot run on the device that was set; or it was named, and lacks an option that was set.

    """
    kind = ENGINES[name]
    device = options.get("device")
    if device is not None and str(device).split(":")[0] not in kind.devices:
        raise UsageError(f"{name} runs on {' or '.join(kind.devices)}, not on {device}")
    for option in options:
        if named and option not in (*kind.options, "device"):
            has = ", ".join(n for n, other in ENGINES.items() if option in other.options)
            raise UsageError(f"{name} has no option {option}; it is for {has}")
    return {option: value for option, value in options.items() if option in kind.options}


def default_precision(bundle: Bundle, component: str, name: str, *, device: str | None, named: bool) -> str | None:
    """Return the precision that an engine runs a component in if none is set; None if there is no graph for it.

    An engine that was named, here or at export, runs in the precision that is fastest on this machine: OpenVINO
    computes float32 graphs in bfloat16 on CPUs that multiply in it. An engine that ``auto`` chose runs in the precision
    that a graph was exported in: which engine is the fastest must not decide how exact an image is.
    """
    kind, graphs = ENGINES[name], bundle.component(component).graphs
    chosen = kind.choose(graphs, device)
    if chosen in graphs or chosen is None or named or name in bundle.manifest.engines:
        return chosen
    return next((precision for precision in kind.precisions if precision in graphs), None)


def _open(
    bundle: Bundle, component: str, name: str, precision: str | None, options: dict[str, Any], *, named: bool
) -> Engine:
    kind = ENGINES[name]
    reason = kind.module.unavailable()
    if reason is not None:
        raise EngineUnavailableError(reason)
    if precision is None:
        precision = default_precision(bundle, component, name, device=options.get("device"), named=named)
        if precision is None:
            graphs = bundle.component(component).graphs
            raise EngineError(_no_graph(component, name, graphs, kind.precisions))
    elif precision not in kind.precisions:
        raise EngineError(f"{name} cannot run {precision}; it runs {', '.join(kind.precisions)}")
    opened = kind.open(bundle, component, precision=precision, **options)
    if opened.precision != precision:
        raise EngineError(f"{name} was to compute in {precision}, but opened in {opened.precision}")
    return opened


def _no_graph(component: str, engine: str, graphs: Collection[str], precisions: Collection[str]) -> str:
    """Say why an engine runs none of a component's graphs: it, or this machine, does not have their precisions."""
    exported = f"the bundle holds {component} in {', '.join(graphs)}"
    if {*graphs} & {*precisions}:
        return f"{exported}, which {engine} runs on machines that multiply in it; this one does not"
    return f"{exported}; {engine} runs {' and '.join(precisions)}"
